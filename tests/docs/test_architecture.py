"""Compares docs/architecture.md with the docstrings and imports of the modules.

`make map` rewrites the page's lists of modules from the docstrings.
"""

import ast
import functools
import graphlib
import re

import pytest
import running

PACKAGE = running.ROOT / "bit_jax"
PAGE = running.ROOT / "docs/architecture.md"


@functools.cache
def rooms():
  """Returns the rooms in the order of the page, from the bottom to the top."""
  return re.findall(r"^### `(\w+)", PAGE.read_text(), re.M)


@functools.cache
def files():
  """Returns {module: path} of the package's modules; an `__init__` is named like its package."""
  found = {}
  for folder, prefix in (
    (PACKAGE, ("bit_jax",)),
    (running.ROOT / "configs", ("bit_jax", "configs")),
  ):
    for path in folder.rglob("*.py"):
      name = ".".join((*prefix, *path.relative_to(folder).with_suffix("").parts))
      found[name.removesuffix(".__init__")] = path
  return found


@functools.cache
def imports_of(module):
  """Returns the modules of the package that a module imports, inside of functions, too."""
  found = set()
  for node in ast.walk(ast.parse(files()[module].read_text())):
    if isinstance(node, ast.Import):
      found.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f"{module} has a relative import"
      for alias in node.names:
        whole = f"{node.module}.{alias.name}"
        found.add(whole if whole in files() else node.module)
  return {name for name in found if name in files()} - {"bit_jax"}


def room_of(module):
  parts = module.split(".")[1:]
  return parts[0] if parts[0] in rooms() and parts[-1] != "__main__" else "commands"


def summary(module):
  return ast.get_docstring(ast.parse(files()[module].read_text())).splitlines()[0]


def page_with_lists():
  """Returns the page with each room's list of modules as their docstrings have it.

  Packages are not listed, nor are the config files, which the page describes by their folder.
  """
  lists = {room: [] for room in rooms()}
  for module, path in sorted(files().items()):
    if path.name != "__init__.py" and room_of(module) != "configs":
      lists[room_of(module)].append(f"- `{path.relative_to(PACKAGE)}`: {summary(module)}\n")

  def section(match):
    return match[1] + "".join(lists[match[2]])

  return re.sub(r"(^### `(\w+).*\n\n?)(?:- `.*\n)*", section, PAGE.read_text(), flags=re.M)


def test_the_page_lists_every_module_with_the_first_line_of_its_docstring():
  assert PAGE.read_text() == page_with_lists(), "`make map` rewrites the lists"


@pytest.mark.parametrize("module", sorted(set(files()) - {"bit_jax"}))
def test_imports_go_downward_only(module):
  order = rooms()
  height = order.index(room_of(module))
  assert {m for m in imports_of(module) if order.index(room_of(m)) > height} == set()


def test_no_module_imports_itself_through_others():
  graph = {module: imports_of(module) - {module} for module in files()}
  graphlib.TopologicalSorter(graph).prepare()  # raises on a cycle


def test_there_are_at_most_eleven_packages_beside_the_commands():
  packages = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
  assert len(packages) <= 11
  assert packages <= set(rooms())


def test_files_that_the_documentation_names_exist():
  pages = [running.ROOT / "README.md", *(running.ROOT / "docs").glob("*.md")]
  named = {
    name
    for page in pages
    for name in re.findall(
      r"`((?:bit_jax|configs|experiments|tests|docs)/[\w./]+)`", page.read_text()
    )
  }
  assert {
    name
    for name in named
    if not re.search("NAME|_build", name) and not (running.ROOT / name).exists()
  } == set()


def test_import_paths_of_the_changelog_exist():
  table = (running.ROOT / "CHANGELOG.md").read_text().partition("### Import paths")[2]
  rows = [row.split(" | ") for row in table.splitlines() if row.startswith("| `")]
  new = {name for _, cell in rows for name in re.findall(r"`([\w.]+)`", cell)}
  paths = [running.ROOT / name.replace(".", "/") for name in new if "." in name]
  assert len(paths) > 50
  assert [p for p in paths if not (p.with_suffix(".py").exists() or p.is_dir())] == []


def test_the_readme_has_at_most_150_lines():
  assert (running.ROOT / "README.md").read_text().count("\n") <= 150


if __name__ == "__main__":
  PAGE.write_text(page_with_lists())
