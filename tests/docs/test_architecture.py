"""The map in docs/architecture.md, held against the real imports (AST; nothing is imported)."""

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
  """Returns {room: [modules]} in the order of the page, from the bottom to the top."""
  found, modules = {}, []
  for line in PAGE.read_text().splitlines():
    if heading := re.match(r"### `(\w+)", line):
      found[heading[1]] = modules = []
    elif entry := re.match(r"- `([\w/]+)\.py`: \S", line):
      modules.append(f"bit_jax.{entry[1].replace('/', '.')}")
  return found


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


def modules():
  """Returns the modules that the map must list: configs are described by their own folder."""
  return sorted(
    m
    for m, path in files().items()
    if not m.startswith("bit_jax.configs.") and path.name != "__init__.py"
  )


def room_of(module):
  listed = [room for room, names in rooms().items() if module in names]
  return listed[0] if listed else module.split(".")[1]


def test_every_module_is_on_the_map_once():
  assert sorted(m for names in rooms().values() for m in names) == modules()


def test_modules_are_listed_in_the_room_of_their_package():
  for room, names in rooms().items():
    for module in names:
      if room != "commands":
        assert module.split(".")[1] == room


@pytest.mark.parametrize("module", sorted(set(files()) - {"bit_jax"}))
def test_imports_go_downward_only(module):
  order = list(rooms())
  height = order.index(room_of(module))
  assert {m for m in imports_of(module) if order.index(room_of(m)) > height} == set()


def test_no_module_imports_itself_through_others():
  graph = {module: imports_of(module) - {module} for module in files()}
  graphlib.TopologicalSorter(graph).prepare()  # raises on a cycle


def test_there_are_at_most_eight_packages_beside_the_commands():
  packages = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
  assert len(packages) <= 8
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
