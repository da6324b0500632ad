"""Train one model: python -m experiments.train --config FILE[:NAME=VALUE,…] --workdir DIR"""

import jax

import backbones
from experiments import command_line, display, files
from experiments.data import sources
from experiments.training import loop


def main(argv: list[str] | None) -> None:
    """Train, evaluate once on the test split, and write weights and results."""
    arguments = command_line.parser(__doc__)
    command_line.add_data_directory(arguments)
    options, config = command_line.parse(arguments, argv)
    workdir = files.claim_workdir(options.workdir, config.to_dict())
    dataset = sources.load(config.dataset, options.data_dir, config.stored_size, config.bad_files_limit)
    trained = loop.fit(config, dataset, workdir)
    logits = loop.logits_of(trained.model, trained.preprocessing)
    accuracy = loop.accuracy(logits, trained.variables, dataset, 'test')
    backbones.save_weights(workdir / 'weights.safetensors', trained.variables)
    result = {
        'config': config.to_dict(),
        'data': {'provenance': dataset.provenance, 'fingerprint': dataset.fingerprint()},
        'steps': trained.steps,
        'images_per_second': trained.images_per_second,
        'test_accuracy': accuracy,
        'parameters': sum(leaf.size for leaf in jax.tree.leaves(trained.variables['params'])),
    }
    files.write_json(workdir / 'result.json', result)
    display.console.print(f'test accuracy {accuracy:.4f}; weights in {workdir / "weights.safetensors"}')


if __name__ == '__main__':
    command_line.run(main)
