"""Instructions planted in passages: the plain prompt against what is served, in turns, and the reader beside them.

python -m benchmarks.injection --bipia path:DIR [--sets email,table,code] [--cases 20] [--profile starter]

What is asked, what is counted and what a count can say stands in ``curriculum/serving/injection.py``, whose command this is.
"""

from curriculum.serving.injection import main

if __name__ == "__main__":
    main()
