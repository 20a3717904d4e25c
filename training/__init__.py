"""The kit that trains and measures models on one's own pictures: `python -m training --help`.

pictures · views       folders, captions and splits; what a tower sees while it learns
towers · mobilenet     `transformers` backbones with a projection; the folder that the model service loads
fitting · runs         one loop for all: seeds, checkpoints, resuming, plateau, early stop, mixed precision
dual_encoder · metric · fewshot    what is learned, one module each
evaluation/            scores of a served profile and their report
starter/               the recipe of the model that the repository ships

May import everything; nothing imports it.
"""
