"""Packaging. The import names are the folder names; tools/ and conf/ are used from a checkout."""

from setuptools import find_packages, setup

setup(
    name="nasdet",
    version="0.1.0",
    description="Object detection on searched backbones: cells, pretraining, Faster R-CNN, mAP",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["backbone*", "search*", "detection*"]),
    # Makes an editable install a plain .pth file, which type checkers and editors can follow.
    package_dir={"": "."},
    install_requires=[
        "torch>=2.8",
        "torchvision>=0.23",
        "lightning>=2.6",
        "timm>=1.0.22",
        "optuna>=5",
        "safetensors>=0.5",
        "pycocotools>=2.0.8",
        "faster-coco-eval>=1.8,<1.9",  # its compiled functions are called one by one
        "hydra-core>=1.3.2",
        "omegaconf>=2.3,<2.4",
        "matplotlib>=3.9",
        "numpy>=1.26",
        "pillow>=10.4",
        "tqdm>=4.66",
        "pyyaml>=6",
        "msgspec>=0.19",
        "jinja2>=3.1",
        "torchmetrics>=1.4",
    ],
    extras_require={
        "wandb": ["wandb>=0.19"],
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
            "mypy>=1.15",
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
            "six>=1.16",  # pretrainedmodels forgets to ask for it
        ],
    },
)
