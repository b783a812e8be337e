"""A recipe in any Trainer that is like that of transformers."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from sparseml.pytorch.optim import ScheduledModifierManager, ScheduledOptimizer, StepDriver
from sparseml.pytorch.optim.step_driver import Position
from sparseml.pytorch.sparsification.distillation.teacher import needing_teacher
from sparseml.pytorch.utils.logger import LoggerManager
from sparseml.pytorch.utils.model import shapes_of
from sparseml.pytorch.utils.optimizers import stepping_optimizers
from sparseml.pytorch.utils.sparsification import ModuleSparsificationInfo
from sparseml.transformers.checkpoints import STATE_NAME, read_state, write_state
from sparseml.transformers.lent import gradient_sampler, lift_masks, parameters_of
from sparseml.transformers.loss import loss_modifiers
from sparseml.transformers.sparsification import given
from sparseml.transformers.sparsification.attached import (
    AddLoggers,
    UnchangedRates,
    follow_groups,
)
from sparseml.transformers.structure import (
    RECIPE_NAME,
    fit_structure,
    load_weights,
    read_weights,
    recipe_of,
)

if TYPE_CHECKING:
    from transformers import Trainer as _Trainer
else:
    _Trainer = object

_LOGGER = logging.getLogger(__name__)


class RecipeManagerTrainerInterface(_Trainer):
    """Drives a recipe from inside a Trainer; a mixin, to be named before the Trainer.

    :param model: to train
    :param model_state_path: the folder that the model comes from. If it has a ``recipe.yaml`` the
        model gets the structure that this has made
    :param recipe: of this run: a file, the text of one, or None; by default that of ``args``
    :param recipe_args: values for its variables: a mapping, JSON, or ``name=value,...``
    :param metadata_args: names of arguments of ``args`` and ``data_args`` to keep in the recipe
    :param data_args: arguments of the script. If their ``one_shot`` is true the recipe is applied
        to the model at once, without training
    :param teacher: to distil from: a model, ``"self"`` for a copy of the student as it is when
        distillation starts, or ``"disable"``
    :param kwargs: for the Trainer. ``tokenizer`` stands for ``processing_class``;
        ``modifier_log_frequency`` is how many epochs lie between two entries of a modifier
    :raises RecipeError: if anything is wrong with a recipe
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        model_state_path: str | None = None,
        recipe: str | None = None,
        recipe_args: dict[str, Any] | str | None = None,
        metadata_args: list[str] | None = None,
        data_args: Any = None,
        teacher: Any = None,
        **kwargs: Any,
    ) -> None:
        args = kwargs.get("args")
        self.model_state_path = None if model_state_path is None else os.fspath(model_state_path)
        self.recipe = recipe or getattr(args, "recipe", None)
        self.recipe_args = (
            getattr(args, "recipe_args", None) if recipe_args is None else recipe_args
        )
        self.data_args, self.teacher = data_args, teacher
        self.metadata = given.metadata_of(metadata_args, args, data_args)
        self.manager = self._read_recipe()
        self.arch_manager = recipe_of(self.model_state_path) if self.model_state_path else None
        self.logger_manager = LoggerManager(
            log_python=False, log_frequency=kwargs.pop("modifier_log_frequency", 0.1)
        )
        self.manager_applied = False
        self.manager_steps_per_epoch = 0
        self.optimizer: Any = None
        self.lr_scheduler: Any = None
        self._driver: StepDriver | None = None
        self._wraps_optimizer = False
        self._resumes_from: str | None = None
        self._resumes_at = 0.0
        if "tokenizer" in kwargs:
            kwargs.setdefault("processing_class", kwargs.pop("tokenizer"))
        super().__init__(model=model, **kwargs)
        self.add_callback(AddLoggers(self))
        if self._changes_loss():
            # so that a batch's loss is a mean, as that of the distillation is
            self.model_accepts_loss_kwargs = False
        self._fit_epochs()

    @property
    def one_shot(self) -> bool:
        """Whether the recipe is applied at once, without training."""
        of_data = self.data_args
        named = of_data.get if isinstance(of_data, Mapping) else partial(getattr, of_data)
        return bool(named("one_shot", False))

    def apply_manager(self, epoch: float, checkpoint: str | None = None) -> bool:
        """Bring the model to the structure that it has at an epoch, if that was not done yet.

        First it gets the structure of ``model_state_path``, and the weights there if it was another
        one. In one-shot runs the recipe is applied instead.

        :param epoch: infinite for the end of the recipe
        :param checkpoint: the folder that training goes on from, whose weights the Trainer loads
        :return: whether anything was done
        """
        managers = [one for one in (self.arch_manager, self.manager) if one is not None]
        if self.manager_applied or not managers:
            return False
        self.manager_applied = True
        if checkpoint is not None:
            if (Path(checkpoint) / STATE_NAME).is_file():
                # it is restored once the optimizer is there
                managers = [one for one in managers if one is self.arch_manager]
            self._resolve_steps()
            fit_structure(self.model, managers, read_weights(checkpoint))
            return True
        if self.arch_manager is not None and self.model_state_path is not None:
            before = shapes_of(self.model.state_dict())
            fit_structure(self.model, [self.arch_manager], read_weights(self.model_state_path))
            if shapes_of(self.model.state_dict()) != before:
                load_weights(self.model, self.model_state_path)
        if self.manager is not None and self.one_shot:
            self.manager.apply(self.model, loggers=self.logger_manager, **self._lent())
        elif self.manager is not None:
            self._resolve_steps()
            self.manager.apply_structure(self.model, epoch)
        return True

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """Create the optimizer, and have its steps drive the recipe.

        :raises ValueError: for a recipe with distillation and no teacher, and in kinds of training
            whose weights are not the model's own
        """
        if self._wraps_optimizer:  # in an earlier training, or one with a larger batch
            self.optimizer = stepping_optimizers(self.optimizer)[0]
            self._wraps_optimizer = False
        super().create_optimizer(*args, **kwargs)
        if self.manager is None:
            return self.optimizer
        self._require_supported()
        self.begin_anew()
        steps = self.manager_steps_per_epoch = self._steps_in_epoch()
        lent = {"loggers": self.logger_manager, **self._lent()}
        scaler = getattr(self, "scaler", None)
        if scaler is not None:
            self.scaler = wrapper = self.manager.modify(
                self.model, self.optimizer, steps, scaler, 0.0, allow_parallel_module=False, **lent
            )
        else:
            self.optimizer = wrapper = ScheduledOptimizer(
                self.optimizer, self.model, self.manager, steps, initialize_kwargs=lent
            )
        self._driver, self._wraps_optimizer = wrapper.wrapped_driver, True
        self._go_on()
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Create the scheduler; one that changes nothing where the recipe sets learning rates."""
        if self.lr_scheduler is None and self.manager and self.manager.learning_rate_modifiers:
            self.lr_scheduler = UnchangedRates(self.optimizer if optimizer is None else optimizer)
            self._created_lr_scheduler = True
            return self.lr_scheduler
        return super().create_scheduler(num_training_steps, optimizer)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the loss of a batch; in training, as the modifiers of the recipe change it.

        :param inputs: of student and teacher; columns for the teacher alone have names that begin
            with ``distill_teacher:``
        """
        own = given.student_inputs(inputs, self.model, self.teacher)
        kwargs = {} if num_items_in_batch is None else {"num_items_in_batch": num_items_in_batch}
        if not (model.training and self._driver is not None and self._changes_loss()):
            return super().compute_loss(model, own, return_outputs=return_outputs, **kwargs)
        # a Trainer that smooths labels takes them out of what it is given
        loss, outputs = super().compute_loss(model, dict(own), return_outputs=True, **kwargs)
        loss = self._driver.loss_update(
            loss,
            student_outputs=outputs,
            student_inputs=own,
            teacher_inputs=given.teacher_inputs(inputs, self.teacher),
        )
        follow_groups(self.lr_scheduler, self.optimizer)
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Evaluate on a batch, without what is for the teacher."""
        own = given.student_inputs(inputs, self.model, self.teacher)
        return super().prediction_step(model, own, *args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = True) -> None:
        """Save the model, and beside it the recipe that it was made with.

        That of the run comes after that of ``model_state_path``. A checkpoint in the midst of
        training gets the state of the recipe, too.
        """
        super().save_model(output_dir, _internal_call=_internal_call)
        manager = self.manager
        running = self._driver is not None and manager is not None and manager.initialized
        found = manager.state_dict() if manager and running else None  # in all processes
        if not self.args.should_save:
            return
        folder = Path(self.args.output_dir if output_dir is None else output_dir)
        if found is not None and not self.args.save_only_model:
            write_state(folder, manager, found)
        if (recipe := self._whole_recipe()) is not None:
            recipe.save(folder / RECIPE_NAME)

    def begin_anew(self) -> None:
        """Take a fresh manager if the one that there is has been used by a training."""
        if self._driver is None or self.manager is None:
            return
        used: Any = self.manager
        if used.initialized:
            used.enabled = False  # it has nothing to say about its end
            used.finalize(self.model)
        self.manager, self._driver = self._read_recipe(), None

    def finalize_manager(self) -> bool:
        """Finish the recipe, if training has begun by it.

        :return: whether it had
        """
        if self._driver is None or self.manager is None or not self.manager.initialized:
            return False
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            lift_masks(self.manager)
        self.manager.finalize(self.model)
        return True

    def log_model_sparsification(self) -> None:
        """Log how sparse the model is."""
        info = ModuleSparsificationInfo(self.model)
        _LOGGER.info(
            "%s has %d parameters, %.2f%% of those to prune are zero",
            type(self.model).__name__,
            info.params_total,
            info.params_prunable_sparse_percent,
        )
        if self.manager is not None:
            _LOGGER.info("%s", self.manager.summary(self.model))

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if callable(self.teacher) and self._signature_columns is not None:
            names = sorted(parameters_of(self.teacher)[0])
            own = [*names, *(given.TEACHER_PREFIX + name for name in names)]
            self._signature_columns += [n for n in own if n not in self._signature_columns]

    def _read_recipe(self) -> ScheduledModifierManager | None:
        if not self.recipe:
            return None
        return ScheduledModifierManager.from_yaml(
            self.recipe, recipe_variables=self.recipe_args, metadata=self.metadata
        )

    def _whole_recipe(self) -> ScheduledModifierManager | None:
        if self.manager is None or self.arch_manager is None:
            return self.arch_manager if self.manager is None else self.manager
        return ScheduledModifierManager.compose_staged(self.arch_manager, self.manager)

    def _changes_loss(self) -> bool:
        return self.manager is not None and bool(loss_modifiers(self.manager))

    def _fit_epochs(self) -> None:
        """Have the Trainer train for as long as the recipe goes on."""
        if self.manager is None or self.one_shot:
            return
        if self.train_dataset is None:  # for evaluation; steps cannot be resolved
            return
        self._resolve_steps()
        if (epochs := self.manager.max_epochs) > 0:
            if epochs != self.args.num_train_epochs:
                _LOGGER.info("the recipe sets num_train_epochs to %d", epochs)
            self.args.num_train_epochs = epochs

    def _resolve_steps(self) -> None:
        if self.manager is not None and self.train_dataset is not None:
            self.manager.resolve_steps(self._steps_in_epoch())

    def _steps_in_epoch(self) -> int:
        """Return the optimizer steps of an epoch; of data without a length, those of the run."""
        args = self.args
        processes = max(1, args.n_gpu if args.world_size == 1 else args.world_size)
        batch = args.per_device_train_batch_size * processes
        try:
            samples = len(self.train_dataset)
        except TypeError:
            return int(args.max_steps)
        batches = samples // batch if args.dataloader_drop_last else math.ceil(samples / batch)
        return max(1, math.ceil(batches / args.gradient_accumulation_steps))

    def _lent(self) -> dict[str, Any]:
        """Return what modifiers need of a Trainer."""
        assert self.manager is not None
        needing = needing_teacher(self.manager)
        if needing and self.teacher is None and not self.one_shot:
            raise ValueError(
                f"{type(needing[0]).__name__} of the recipe needs a teacher: give the Trainer "
                "teacher=..., a model, 'self' or 'disable'"
            )
        teacher = {} if self.teacher is None else {"distillation_teacher": self.teacher}
        sampler = {
            **self._gradient_sampler(loader=None),
            "data_loader_builder": self._data_loader,
            "loss_function": self._loss_of,
        }
        return {"grad_sampler": sampler, **teacher}

    def _gradient_sampler(self, loader: Any) -> dict[str, Any]:
        batch_size = self.args.per_device_train_batch_size
        return gradient_sampler(loader, batch_size, self.model, self.args)

    def _data_loader(self, **kwargs: Any) -> Any:
        loader = getattr(self.callback_handler, "train_dataloader", None)
        loader = self.get_train_dataloader() if loader is None else loader
        return self._gradient_sampler(loader)["data_loader_builder"](**kwargs)

    def _loss_of(self, outputs: Any, labels: Any) -> Tensor:
        smoother = self.label_smoother
        if smoother is None or labels is None:
            loss: Tensor = self._gradient_sampler(loader=None)["loss_function"](outputs, labels)
            return loss
        shifts = getattr(self, "_loss_shifts_labels", False)
        smoothed: Tensor = smoother(outputs, labels, shift_labels=shifts)
        return smoothed

    def _go_on(self) -> None:
        """Bring recipe and step count to those of the checkpoint that training goes on from."""
        folder, driver = self._resumes_from, self._driver
        if folder is None or driver is None:
            return
        if (Path(folder) / STATE_NAME).is_file():
            read_state(Path(folder), self.manager, self.model)
            return
        epoch = self._resumes_at
        _LOGGER.warning(
            "%s has no %s: the recipe goes on from epoch %g, but its modifiers know nothing of "
            "what was before",
            folder,
            STATE_NAME,
            epoch,
        )
        driver.resume(Position.at(epoch, self.manager_steps_per_epoch))

    def _require_supported(self) -> None:
        for name in ("is_deepspeed_enabled", "is_fsdp_enabled"):
            if getattr(self, name, False):
                raise ValueError(
                    f"this Trainer runs no recipe with {name.split('_')[1]}; SparseMLCallback in a "
                    "plain transformers.Trainer does with FSDP2"
                )
