"""The smallest run that there is: a base model of one layer, four steps, a second at most."""

LINE = (
    "pretrain --quick --threads 1 --model.hidden-size 16 --model.num-hidden-layers 1 "
    "--model.first-k-dense-replace 1 --model.intermediate-size 16 --pretrain.length 24 "
    "--pretrain.schedule.total-tokens 192 --pretrain.schedule.batch-rows 2 "
    "--pretrain.schedule.warmup-steps 0 --pretrain.checkpoint-every 1 "
    "--evaluation.validation-rows 1"
).split()
