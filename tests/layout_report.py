"""Modules per folder, import cycles and lines of the packages.

python tests/layout_report.py
"""

from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PACKAGES = ("backbone", "search", "detection")


def modules_per_folder(package):
    """Return the number of modules of every folder of a package, without ``__init__.py``."""
    folders = [path.parent for path in (ROOT / package).rglob("__init__.py")]
    return {
        str(folder.relative_to(ROOT)): len(
            [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        )
        for folder in sorted(folders)
    }


def import_cycles(package):
    """Return the groups of modules of a package that import each other, directly or not.

    Imports inside functions count.
    """
    graph = grimp.build_graph(package)
    modules = sorted(graph.modules)
    reachable = {module: graph.find_upstream_modules(module) for module in modules}
    cycles = {
        tuple(
            other for other in modules if other in reachable[module] and module in reachable[other]
        )
        for module in modules
    }
    return sorted(cycle for cycle in cycles if len(cycle) > 1)


def count_lines():
    """Return the lines of all packages and tools, as ``wc -l`` counts them."""
    return sum(
        path.read_text(encoding="utf-8").count("\n")
        for folder in (*PACKAGES, "tools")
        for path in (ROOT / folder).rglob("*.py")
    )


def main():
    for package in PACKAGES:
        for folder, count in modules_per_folder(package).items():
            print(f"{folder:32} {count:3} modules")
        cycles = import_cycles(package)
        print(f"{package}: {len(cycles)} import cycles")
        for cycle in cycles:
            print(f"  {', '.join(cycle)}")
    print(f"lines of {', '.join(PACKAGES)} and tools: {count_lines():,}")


if __name__ == "__main__":
    main()
