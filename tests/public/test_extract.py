"""Extraction of code blocks, on snippets of our own."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

from conformance.extract import blocks_of_docstrings, blocks_of_page, literal_blocks, python_blocks

PAGE = """\
Title
=====

.. code-block:: python

    x = 1

    y = 2

Text between.

.. code-block:: bash

    echo no

.. tabs::

   .. code-block:: python
      :linenos:

      z = 3
"""


def test_page_blocks_are_dedented_and_located(tmp_path: Path) -> None:
    page = tmp_path / "page.rst"
    page.write_text(PAGE)
    blocks = blocks_of_page(page)
    assert [(block.line, block.text) for block in blocks] == [(6, "x = 1\n\ny = 2\n"), (21, "z = 3\n")]
    assert [block.index for block in blocks] == [0, 1]


def test_docstring_blocks_know_their_owner_and_line(tmp_path: Path) -> None:
    module = tmp_path / "stub.py"
    module.write_text(
        dedent('''\
        def outer(a):
            """Does something.

            .. code-block:: python

                b = outer(a)
            """

        class Thing:
            def method(self):
                r"""Text.

                .. code-block:: python

                    thing.method()
                """
        ''')
    )
    found = [(block.owner, block.line, block.text) for block in blocks_of_docstrings(module)]
    assert found == [("outer", 6, "b = outer(a)\n"), ("Thing.method", 15, "thing.method()\n")]
    for _, line, text in found:
        assert module.read_text().splitlines()[line - 1].strip() == text.strip()


def test_empty_block_is_no_block() -> None:
    assert list(python_blocks([".. code-block:: python", "", "text"])) == []


def test_literal_blocks() -> None:
    page = """\
Text that introduces::

    first = 1

    second = 2

More text, with a directive that is none:

.. note::

   told ::

      third
::

  fourth
"""
    assert list(literal_blocks(page)) == ["first = 1\n\nsecond = 2\n", "third\n", "fourth\n"]
    assert list(literal_blocks("nothing follows ::\n\nleft again")) == []
