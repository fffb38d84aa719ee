"""The package's front door."""

import subprocess
import sys

import pytest

import limbeck.data


def test_every_public_name_is_there():
    assert all(getattr(limbeck.data, name) is not None for name in limbeck.data.__all__)
    with pytest.raises(AttributeError, match="no attribute 'prepair'"):
        _ = limbeck.data.prepair


def test_settings_load_neither_arrow_nor_numpy():
    code = "import sys, limbeck.data.config as c; print({'pyarrow', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
