// What a warp does together, once all its lanes have brought their part. A lane that is not there brings zeros to a
// product and an undefined value to an exchange.
#include "block.h"

#include <cstring>

namespace emulated {

void exchange(void* const (&brought)[32]) {
    for (void* mine : brought) {
        if (!mine) continue;
        Exchange& e = *static_cast<Exchange*>(mine);
        const void* other = brought[e.from % 32];
        e.result = other ? static_cast<const Exchange*>(other)->value : ~0u;
    }
}

namespace {

// The element `k` of a row of A or a column of B is in byte (or half) `k % PER` of register `k / PER`; register r of a
// row is register r / 4 (times two for A, whose odd ones are eight rows down) of lane 4 * row + r % 4.
template <u32 K, u32 PER> struct Gathered {
    u32 a[16][K / PER] = {}, b[8][K / PER] = {};

    explicit Gathered(void* const (&brought)[32]) {
        for (u32 lane = 0; lane < 32; lane++) {
            if (!brought[lane]) continue;
            const Fragments& f = *static_cast<const Fragments*>(brought[lane]);
            const u32 g = lane / 4, t = lane % 4;
            for (u32 half = 0; half < K / PER / 4; half++) {
                a[g][4 * half + t] = f.a[2 * half];
                a[g + 8][4 * half + t] = f.a[2 * half + 1];
                b[g][4 * half + t] = f.b[half];
            }
        }
    }
};

template <class T> T& element(void* const (&brought)[32], u32 row, u32 column) {
    Fragments& f = *static_cast<Fragments*>(brought[4 * (row % 8) + column / 2]);
    return static_cast<T*>(f.c)[2 * (row / 8) + column % 2];
}

bool has_element(void* const (&brought)[32], u32 row, u32 column) { return brought[4 * (row % 8) + column / 2]; }

template <u32 K> void multiply_u8s8(void* const (&brought)[32]) {
    const Gathered<K, 4> registers(brought);
    i16 a[16][K], b[8][K];
    for (u32 row = 0; row < 16; row++) {
        u8 bytes[K];
        std::memcpy(bytes, registers.a[row], K);
        for (u32 k = 0; k < K; k++) a[row][k] = bytes[k];
    }
    for (u32 column = 0; column < 8; column++) {
        i8 bytes[K];
        std::memcpy(bytes, registers.b[column], K);
        for (u32 k = 0; k < K; k++) b[column][k] = bytes[k];
    }
    for (u32 row = 0; row < 16; row++) {
        for (u32 column = 0; column < 8; column++) {
            if (!has_element(brought, row, column)) continue;
            i32 sum = 0;
            for (u32 k = 0; k < K; k++) sum += a[row][k] * b[column][k];
            i32& c = element<i32>(brought, row, column);
            c = static_cast<i32>(static_cast<u32>(c) + static_cast<u32>(sum));
        }
    }
}

} // namespace

void multiply_u8s8_k32(void* const (&brought)[32]) { multiply_u8s8<32>(brought); }
void multiply_u8s8_k16(void* const (&brought)[32]) { multiply_u8s8<16>(brought); }

void multiply_bf16_k16(void* const (&brought)[32]) {
    const Gathered<16, 2> registers(brought);
    const auto at = [](const u32* row, u32 k) { return bf16_to_f32(static_cast<u16>(row[k / 2] >> 16 * (k % 2))); };
    f32 b[16][8];
    for (u32 column = 0; column < 8; column++) {
        for (u32 k = 0; k < 16; k++) b[k][column] = at(registers.b[column], k);
    }
    for (u32 row = 0; row < 16; row++) {
        f32 sums[8] = {};
        for (u32 column = 0; column < 8; column++) {
            if (has_element(brought, row, column)) sums[column] = element<f32>(brought, row, column);
        }
        for (u32 k = 0; k < 16; k++) {
            const f32 a = at(registers.a[row], k);
            for (u32 column = 0; column < 8; column++) sums[column] = fma(a, b[k][column], sums[column]);
        }
        for (u32 column = 0; column < 8; column++) {
            if (has_element(brought, row, column)) element<f32>(brought, row, column) = sums[column];
        }
    }
}

} // namespace emulated
