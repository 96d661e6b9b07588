"""The three picture encoders of the openpilot models, from the stem to the pooled vector."""
from __future__ import annotations

from compiled_models.standin.layers import PRE_STD, activation, conv, global_pool, linear
from compiled_models.standin.net import Net, Value


def pixels(net: Net, x: Value) -> Value:
    """0..255 -> -2..2, with the constants of the only network of this family comma published.

    Scenes have a std of about 0.4; a design std of 0.8 leaves room for black frames and noise.
    """
    return net.scale(net.scale(x, "Sub", 127.5), "Div", 63.75, 0.8)


def fastvit_t12(net: Net, x: Value) -> Value:
    """Reparameterised FastViT-T12 with 2048 classes: (1, 24, 128, 256) -> (1, 2048).

    Three stem convs, then stages of 2, 2, 6 and 2 blocks with 64 to 512 channels at strides 4 to
    32. A stage after the first starts with a grouped 7x7 of stride 2 that doubles the channels,
    and a 1x1. The final conv has squeeze-excite.
    """
    x = conv(net, x, "stem.0", 64, 3, 2, act="gelu")
    x = conv(net, x, "stem.1", 64, 3, 2, groups=64, act="gelu")
    x = conv(net, x, "stem.2", 64, act="gelu")
    for stage, (width, depth) in enumerate([(64, 2), (128, 2), (256, 6), (512, 2)]):
        if stage > 0:
            with net.scope(f"stages.{stage}/downsample"):
                x = conv(net, x, "proj.0", width, 7, 2, groups=x.shape[1])
                x = conv(net, x, "proj.1", width, act="gelu")
        for block in range(depth):
            with net.scope(f"stages.{stage}/blocks.{block}"):
                x = repmixer_block(net, x)
    with net.scope("final_conv"):
        x = conv(net, x, "conv", 1024, 3, groups=512, std=2 * PRE_STD["gelu"])
        x = activation(net, squeeze_excite(net, x), "gelu")
    return linear(net, global_pool(net, x), "head.fc", 2048)


def repmixer_block(net: Net, x: Value) -> Value:
    """Depthwise 3x3 (RepMixer), then x + fc2(gelu(fc1(depthwise 7x7))); layer scale in fc2."""
    width = x.shape[1]
    x = conv(net, x, "token_mixer", width, 3, groups=width, std=0.3 * x.std, skip=True)
    y = conv(net, x, "mlp.conv", width, 7, groups=width)
    y = conv(net, y, "mlp.fc1", 3 * width, act="gelu")
    return net.add(x, conv(net, y, "mlp.fc2", width, std=0.5 * x.std))


def squeeze_excite(net: Net, x: Value) -> Value:
    """Weigh each channel by a sigmoid of the pooled channels."""
    y = net.reduce("ReduceMean", x, [2, 3], std=0.5 * x.std)
    y = conv(net, y, "se.fc1", 64, act="relu")
    y = conv(net, y, "se.fc2", x.shape[1], act="sigmoid")
    return net.op("Mul", [x, y], x.shape, 0.0, x.std * y.mean)


# (expansion, output channels, blocks, kernel, stride of the first block)
EFFICIENTNET_B2_STAGES = (
    (1, 16, 2, 3, 1),
    (6, 24, 3, 3, 2),
    (6, 48, 3, 5, 2),
    (6, 88, 4, 3, 2),
    (6, 120, 4, 5, 1),
    (6, 208, 5, 5, 2),
    (6, 352, 2, 3, 1),
)


def efficientnet_b2(net: Net, x: Value) -> Value:
    """EfficientNet-B2 without squeeze-excite, ELU for swish: (1, 12, 128, 256) -> (1, 1024).

    23 MBConv blocks; the head is a depthwise 1x1, ELU and a 1x1 to 32 channels of 4x8.
    """
    x = conv(net, x, "_conv_stem", 32, 3, 2, act="elu")
    index = 0
    for expansion, cout, depth, k, first_stride in EFFICIENTNET_B2_STAGES:
        for i in range(depth):
            with net.scope(f"_blocks.{index}"):
                x = mbconv_block(net, x, expansion, cout, k, 1 if i else first_stride, i > 0)
            index += 1
    x = conv(net, x, "_conv_head/_depthwise_conv", 352, groups=352, act="elu")
    return net.op("Flatten", [conv(net, x, "_conv_head/_project_conv", 32)], (1, 1024))


def mbconv_block(net: Net, x: Value, expansion: int, cout: int, k: int, stride: int,
                 skip: bool) -> Value:
    """Widen (1x1), depthwise k x k, project (1x1); skip adds the input."""
    wide = x.shape[1] * expansion
    y = conv(net, x, "_expand_conv", wide, act="elu") if expansion > 1 else x
    y = conv(net, y, "_depthwise_conv", wide, k, stride, wide, "elu")
    y = conv(net, y, "_project_conv", cout, std=0.5 * x.std if skip else 1.0)
    return net.add(x, y) if skip else y


# (channels, kernel, stride)
MOBILENET_V4_STEM = ((32, 3, 2), (32, 3, 2), (32, 1, 1), (96, 3, 2), (64, 1, 1))
# (kernel of the first depthwise conv, of the second (0: none), stride, expansion, channels)
MOBILENET_V4_BLOCKS = (
    (5, 5, 2, 3, 96),
    (0, 3, 1, 2, 96),
    (0, 3, 1, 2, 96),
    (0, 3, 1, 2, 96),
    (0, 3, 1, 2, 96),
    (3, 0, 1, 4, 96),
    (3, 3, 2, 6, 128),
    (5, 5, 1, 4, 128),
    (0, 5, 1, 4, 128),
    (0, 5, 1, 3, 128),
    (0, 3, 1, 4, 128),
    (0, 3, 1, 4, 128),
)


def mobilenet_v4_small(net: Net, x: Value) -> Value:
    """MobileNetV4-Conv-Small with GELU: (1, C, H, W) -> (1, 960) after stride 32 and pooling."""
    for i, (cout, k, stride) in enumerate(MOBILENET_V4_STEM):
        x = conv(net, x, f"conv.{i}", cout, k, stride, act="gelu")
    for i, (first, second, stride, expansion, cout) in enumerate(MOBILENET_V4_BLOCKS):
        with net.scope(f"blocks.{i}"):
            x = inverted_bottleneck(net, x, first, second, stride, expansion, cout)
    return global_pool(net, conv(net, x, "conv_last", 960, act="gelu"))


def inverted_bottleneck(net: Net, x: Value, first: int, second: int, stride: int,
                        expansion: int, cout: int) -> Value:
    """Universal inverted bottleneck: depthwise convs before and after the expansion, or none."""
    cin = x.shape[1]
    wide = expansion * cin
    skip = stride == 1 and cout == cin
    y = conv(net, x, "dw_start", cin, first, groups=cin) if first else x
    y = conv(net, y, "pw_exp", wide, act="gelu")
    y = conv(net, y, "dw_mid", wide, second, stride, wide, "gelu") if second else y
    y = conv(net, y, "pw_proj", cout, std=0.5 * x.std if skip else 1.0)
    return net.add(x, y) if skip else y
