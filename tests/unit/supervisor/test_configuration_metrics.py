"""The metrics of the configuration: reloads, and whether the file is the one in use."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from parley.supervisor.configuration_metrics import ConfigurationFile, ConfigurationMetrics


def values(metrics: ConfigurationMetrics) -> dict[str, float]:
    """Returns the samples, by name and outcome."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        sample.name.removeprefix("parley_config_") + sample.labels.get("outcome", ""): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_changed_file_is_not_in_use_until_its_reload(tmp_path: Path) -> None:
    """What counts is the content: a file that was only touched, or changed back, is in use."""
    file = tmp_path / "parley.yaml"
    file.write_text("a: 1\n")
    metrics = ConfigurationMetrics(ConfigurationFile.read(file))
    began = values(metrics)
    expected = {"reloads_totalsuccess": 0, "reloads_totalfailure": 0, "last_reload_successful": 1, "file_in_use": 1}
    assert expected.items() <= began.items()
    file.write_text("a: 1\n")
    assert 1 == values(metrics)["file_in_use"]
    file.write_text("a: 2\n")
    assert 0 == values(metrics)["file_in_use"]
    metrics.record_failure()
    after = values(metrics)
    assert (0, 0, 1) == (after["file_in_use"], after["last_reload_successful"], after["reloads_totalfailure"])
    assert began["last_reload_success_timestamp_seconds"] == after["last_reload_success_timestamp_seconds"]
    metrics.record_success(ConfigurationFile.read(file))
    after = values(metrics)
    assert (1, 1, 1) == (after["file_in_use"], after["last_reload_successful"], after["reloads_totalsuccess"])
    assert began["last_reload_success_timestamp_seconds"] < after["last_reload_success_timestamp_seconds"]
    file.unlink()
    assert 0 == values(metrics)["file_in_use"]


def test_the_default_configuration_has_no_file() -> None:
    """It is always in use."""
    assert 1 == values(ConfigurationMetrics(ConfigurationFile.read(None)))["file_in_use"]
