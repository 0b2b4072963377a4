// What both kinds of kernels for plain floats share.
#pragma once

#include "device.cuh"
#include "output.cuh"

namespace dense {

using matmul::Output;
using matmul::write;

constexpr u32 LANES = 16;

} // namespace dense
