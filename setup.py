"""Packaging. The import names are the folder names; a wheel has tools/ and conf/ in nasdet."""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py


class BuildWithTools(build_py):
    """Build tools/ as the package nasdet and conf/ as nasdet.conf, except in an editable install.

    In an editable install, the command runs the tools of the checkout.
    """

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.editable_mode:
            return
        folders = sorted({path.parent for path in Path("tools").rglob("*.py")})
        names = [".".join(("nasdet", *folder.parts[1:])) for folder in folders]
        self.packages = [*self.packages, *names, "nasdet.conf"]
        self.package_dir = {**self.package_dir, "nasdet": "tools", "nasdet.conf": "conf"}

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Leave out the former paths of tools, which only name the current ones."""
        modules = super().find_package_modules(package, package_dir)
        return [
            (package, name, path)
            for package, name, path in modules
            if package != "nasdet" or name.startswith("_") or "@tool(" in Path(path).read_text()
        ]


setup(
    name="nasdet",
    version="0.1.0",
    description="Object detection on searched backbones: cells, pretraining, Faster R-CNN, mAP",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["backbone*", "search*", "detection*"]),
    # Makes an editable install a plain .pth file, which type checkers and editors can follow.
    package_dir={"": "."},
    package_data={
        "backbone": ["py.typed", "**/conf/**/*.yaml"],
        "search": ["py.typed", "**/conf/**/*.yaml"],
        "detection": ["py.typed", "**/conf/**/*.yaml"],
        "nasdet": ["_completion.*sh"],
        "nasdet.conf": ["**/*.yaml"],
    },
    scripts=["tools/nasdet"],
    cmdclass={"build_py": BuildWithTools},
    install_requires=[
        "torch>=2.8",
        "torchvision>=0.23",
        "lightning>=2.6",
        "timm>=1.0.22",
        "optuna>=5",
        "safetensors>=0.5",
        "pycocotools>=2.0.8",
        "hotcoco>=1.3",
        "hydra-core>=1.3.2",
        "omegaconf>=2.3,<2.4",
        "matplotlib>=3.9",
        "numpy>=1.26",
        "pillow>=10.4",
        "tqdm>=4.66",
        "rich>=13",
        "pyyaml>=6",
        "msgspec>=0.19",
        "jinja2>=3.1",
        "torchmetrics>=1.4",
    ],
    extras_require={
        "wandb": ["wandb>=0.19"],
        "mlflow": ["mlflow-skinny>=2.8", "sqlalchemy>=2", "alembic>=1.10"],
        "detectron2": ["detectron2"],
        "video": ["opencv-python-headless>=4.10"],
        "onnx": ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.3"],
        "ray": ["ray>=2.40"],
        "postgresql": ["psycopg2-binary>=2.9"],
        "dev": [
            "wandb>=0.19",
            "opencv-python-headless>=4.10",
            "hypothesis>=6.100",
            "import-linter>=2",
            "ipykernel>=6.29",
            "mypy>=1.15",
            "nbclient>=0.10",
            "nbformat>=5.10",
            "onnx>=1.17",
            "onnxruntime>=1.20",
            "onnxscript>=0.3",
            "pretrainedmodels>=0.7.4",
            "psycopg2-binary>=2.9",
            "pytest>=8.3",
            "pytest-cov>=5",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "ray>=2.40",
            "ruff>=0.11",
            "setuptools>=70.1",  # tests build the wheel
            "six>=1.16",  # pretrainedmodels forgets to ask for it
        ],
    },
)
