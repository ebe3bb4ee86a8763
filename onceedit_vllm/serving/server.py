"""The server: vLLM's own, with the processor, its settings and its metrics wired in."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from onceedit_vllm.config import ServingConfig
from onceedit_vllm.serving.checks import check_named_once, check_one_engine, check_settings, find_llm
from onceedit_vllm.serving.ending import ended_by_sigterm
from onceedit_vllm.serving.shared_metrics import shared_metrics
from onceedit_vllm.serving.wiring import with_extension, with_processor, with_settings, with_updates


def serve(
    llm: str, config: ServingConfig, options: Sequence[str] = (), allow_pack_updates: bool = False
) -> None:
    """Serve an LLM with a pack's edits until a signal ends it.

    Args:
        llm: A known name, a folder or a hub id; clients name the model like this too.
        config: What was given of the processor's settings. Those left out may be given in
            ``--additional-config``.
        options: For vLLM's own parser, untouched.
        allow_pack_updates: Let clients change the pack over HTTP.

    Raises:
        OnceEditError: The pack, the LLM or an option cannot be used, or the engine did not start.
        SystemExit: vLLM's parser has said what is wrong with the options.
    """
    check_named_once(llm, options)
    config = check_settings(config)
    model = find_llm(llm, options)
    # A port of our own leaves vLLM's metrics as they are without us.
    with ended_by_sigterm(), shared_metrics() if config.metrics_port is None else nullcontext():
        from onceedit_vllm.runner.api_server import ServeCommand

        command = ServeCommand({"served_model_name": [llm]})
        args = command.parse([model, *options])
        args.logits_processors = with_processor(args.logits_processors)
        ours = config.model_dump(mode="json", exclude_unset=True)
        if args.chat_template is not None:
            ours["chat_template"] = args.chat_template
        args.additional_config = with_settings(args.additional_config, ours)
        args.worker_extension_cls = with_extension(args.worker_extension_cls, allow_pack_updates)
        if allow_pack_updates:
            check_one_engine(args.data_parallel_size)
            args.middleware = with_updates(args.middleware)
        command.run(args)


def show_options(topic: str) -> None:
    """Print vLLM's help: of all its options, of a group of them, or of one.

    Raises:
        SystemExit: Always; that is how the parser ends.
    """
    from onceedit_vllm.runner.api_server import ServeCommand

    ServeCommand({}).parse([f"--help={topic}"])
