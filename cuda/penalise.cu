// Step 0 of sampling: what the penalties make of the logits of the tokens read and written so far. The logits stay as they are; `sample`
// reads the changed ones beside them. python/tokamask/reference/sampling.py is the definition, bit for bit.
//
// logits  [batch, stride] ELEMENT
// prompt [batch, prompt_count] int32, output [batch, output_count] int32, either may be null; ids outside the vocabulary are passed over
// repetition, presence, frequency [batch] float32; each may be null: then the value behind it serves all rows
// touched [batch, words] uint32: bit v % 32 of word v / 32 for each such token; changed [batch, vocab_size] float32: its logit. The rest of
//         `changed` is neither read nor written.
// grid (batch), block 512.
#include "tokamask/element.cuh"

namespace {
using namespace tokamask;
constexpr int kThreads = 512;
}  // namespace

extern "C" __global__ void __launch_bounds__(512, 2)
penalise(const ELEMENT* logits, const int32_t* prompt, const int32_t* output, const float* repetitions, float repetition, const float* presences,
         float presence, const float* frequencies, float frequency, uint32_t* touched, float* changed, int64_t stride, int32_t vocab_size,
         int32_t words, int32_t prompt_count, int32_t output_count) {
    const int64_t b = blockIdx.x;
    uint32_t* bits = touched + b * words;
    // Until its logit is written, the place of a token holds how often it was written, and above it whether at all.
    uint32_t* counts = reinterpret_cast<uint32_t*>(changed + b * vocab_size);
    const auto each = [=](auto item) {
        for (int i = threadIdx.x; i < prompt_count; i += kThreads) {
            const int token = prompt[b * prompt_count + i];
            if (token >= 0 && token < vocab_size) item(token, 0u);
        }
        for (int i = threadIdx.x; i < output_count; i += kThreads) {
            const int token = output[b * output_count + i];
            if (token >= 0 && token < vocab_size) item(token, 1u);
        }
    };
    for (int w = threadIdx.x; w < words; w += kThreads) bits[w] = 0;
    each([=](int token, uint32_t) { atomicExch(&counts[token], 0u); });
    __syncthreads();
    each([=](int token, uint32_t written) {
        if (written) atomicAdd(&counts[token], 1u);
    });
    __syncthreads();
    if (repetitions) repetition = repetitions[b];
    if (presences) presence = presences[b];
    if (frequencies) frequency = frequencies[b];
    each([=](int token, uint32_t) {
        const uint32_t bit = 1u << (token & 31);
        if (atomicOr(&bits[token >> 5], bit) & bit) return;  // another thread has it
        const uint32_t times = counts[token];
        float x = to_float(logits[b * stride + token]);
        x = x > 0.f ? __fdiv_rn(x, repetition) : __fmul_rn(x, repetition);
        if (times) x = __fsub_rn(__fsub_rn(x, __fmul_rn(frequency, float(times))), presence);
        changed[b * vocab_size + token] = x;
    });
}
