"""The files that come with the module are found wherever it was installed."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from activeo3_ros.assets import resources


def install(module: Path) -> ModuleType:
    """Put resources.py, alone, where `module` says and import it from there."""
    (module / "assets").mkdir(parents=True)
    (module / "__init__.py").touch()
    shutil.copy(resources.__file__, module / "assets")
    spec = importlib.util.spec_from_file_location("activeo3_ros.assets.resources", module / "assets" / "resources.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def directory(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_here_the_presets_and_the_messages_are_found():
    assert (resources.config_directory() / "embedded.yaml").is_file()
    assert (resources.message_directory() / "PerceptionResult.msg").is_file()


@pytest.mark.parametrize("python_directory", ["lib/python3.11/site-packages", "local/lib/python3.12/dist-packages"])
def test_colcon_installs_them_in_share(tmp_path, python_directory):
    config = directory(tmp_path / "install" / "activeo3_ros" / "share" / "activeo3_ros" / "config")
    directory(tmp_path / "install" / "activeo3_ros" / python_directory / "config")  # of another package
    installed = install(tmp_path / "install" / "activeo3_ros" / python_directory / "activeo3_ros")
    assert installed.config_directory() == config


def test_links_to_the_sources_lead_to_the_files_there(tmp_path):
    source = install(tmp_path / "src" / "activeo3_ros")
    (tmp_path / "src" / "package.xml").touch()
    config = directory(tmp_path / "src" / "config")
    assert source.config_directory() == config

    linked = directory(tmp_path / "install" / "lib" / "python3.11" / "site-packages" / "activeo3_ros")
    (linked / "__init__.py").symlink_to(tmp_path / "src" / "activeo3_ros" / "__init__.py")
    source.MODULE = linked
    assert source.config_directory() == config


def test_pip_installs_them_in_the_module(tmp_path):
    module = tmp_path / "site-packages" / "activeo3_ros"
    installed = install(module)
    config, messages = directory(module / "config"), directory(module / "interfaces")
    assert installed.config_directory() == config
    assert installed.message_directory() == messages


def test_a_broken_installation_is_said_to_be_broken(tmp_path):
    installed = install(tmp_path / "site-packages" / "activeo3_ros")
    with pytest.raises(
        resources.MissingFiles.__mro__[1], match=r"config/ are not installed.*install the package again"
    ):
        installed.config_directory()
