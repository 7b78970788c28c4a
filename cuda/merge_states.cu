// Joins partial attention states: out = sum_p w_p v_p with w = softmax_p(lse), lse_out = logsumexp_p(lse).
//
// v    [rows, parts, heads, dim] PARTIAL, lse [rows, parts, heads] float32 (natural log; -inf: an empty part)
// sinks [heads] float32 or null: a logit without a value that takes its share of the weight; lse_out leaves it out
// out  [rows, heads, dim] ELEMENT, lse_out [rows, heads] float32 or null. All parts empty: 0 and -inf.
// grid (rows, heads), block 128.
#include "tokamask/element.cuh"
#include "tokamask/block.cuh"

namespace {
using namespace tokamask;
}  // namespace

extern "C" __global__ void __launch_bounds__(128, 8)
merge_states(const PARTIAL* v, const float* lse, const float* sinks, ELEMENT* out, float* lse_out, int32_t parts, int32_t dim) {
    const int64_t row = blockIdx.x, head = blockIdx.y, heads = gridDim.y;
    const float* part_lse = lse + row * parts * heads + head;
    float top = negative_infinity(), sum = 0.f;
    for (int p = 0; p < parts; ++p) top = fmaxf(top, part_lse[p * heads]);
    const float base = top == negative_infinity() ? 0.f : top;
    for (int p = 0; p < parts; ++p) sum += expf(part_lse[p * heads] - base);
    const bool empty = sum == 0.f;  // false for NaN, which must come through
    const float merged = empty ? negative_infinity() : base + logf(sum);
    float factor = empty ? 0.f : 1.f / sum;
    if (sinks && !empty) factor /= 1.f + expf(sinks[head] - merged);
    for (int d = threadIdx.x; d < dim; d += 128) {
        float value = 0.f;
        for (int p = 0; p < parts; ++p) {
            const float weight = expf(part_lse[p * heads] - base);
            if (weight != 0.f) value = fmaf(weight, to_float(v[((row * parts + p) * heads + head) * dim + d]), value);
        }
        store(out + (row * heads + head) * dim + d, value * factor);
    }
    if (lse_out && threadIdx.x == 0) lse_out[row * heads + head] = merged;
}
