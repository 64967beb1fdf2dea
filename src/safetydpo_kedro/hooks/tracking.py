"""The switch of recording in MLflow: the parameter ``mlflow``, off by default."""

from __future__ import annotations

from kedro.config import MissingConfigException
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl

from safetydpo_kedro.tracking import quiet_start

SWITCH = "mlflow"


class TrackingHooks:
    """Let kedro-mlflow record a run if, and only if, the parameter ``mlflow`` is true."""

    # Kedro would load the hooks of kedro-mlflow by this name in every run, where it is installed;
    # it skips a name that is taken. So a run that is not recorded does not even import MLflow.
    __name__ = "mlflow_hook"

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Hand over to kedro-mlflow if recording is switched on.

        Raises:
            ValueError: the parameter is neither true nor false.
            ModuleNotFoundError: it is true, and kedro-mlflow is not installed.
        """
        if not switched_on(context):
            return
        quiet_start()
        try:
            from safetydpo_kedro.hooks.mlflow import RecordingHooks
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"parameter '{SWITCH}' = True needs a package that is not installed "
                f"({error.name}): pip install 'safetydpo_kedro[mlflow]'"
            ) from error
        hooks = RecordingHooks()
        context._hook_manager.register(hooks)
        hooks.after_context_created(context)  # this very call has begun without them


def switched_on(context: KedroContext) -> bool:
    """Value of the parameter ``mlflow``, from the configuration or the command line.

    Raises:
        ValueError: it is neither true nor false.
    """
    try:  # not context.params: that would check the parameters of all pipelines
        value = context.config_loader["parameters"].get(SWITCH, False)
    except MissingConfigException:
        return False
    if not isinstance(value, bool):
        raise ValueError(f"parameter '{SWITCH}' = {value!r}: must be true or false")
    return value
