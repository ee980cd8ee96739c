"""Reading on before the labels: domain-adaptive and task-adaptive pre-training, one after the other and apart."""
