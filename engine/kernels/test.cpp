// Every engine of this CPU, and the emulated ones, on small models of random weights: the same bits from each without tiles and from
// each with them, alone and beside other pairs, on one thread and on several; with and without tiles nearly the same; and products
// that are what their formula says. Built with the sanitizers by the tests.
//
//   kernels_test [SEED] [ROUNDS]
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "api.hpp"
#include "scalar.hpp"

#include "product.hpp"

namespace {

const char* const ENGINES[] = {"scalar", "scalar-tiles", "avx2", "avxvnni", "avx512", "avx512bf16", "amx"};
std::mt19937 generator;

int below(int limit) { return int(generator() % unsigned(limit)); }
float normal(float scale) { return std::normal_distribution<float>(0, scale)(generator); }

[[noreturn]] void fail(const char* what) {
    std::printf("FAILED: %s\n", what);
    std::exit(1);
}

// Arrays of exactly the size that the kernels may read.
struct Arrays {
    std::vector<void*> all;
    ~Arrays() { for (void* each : all) std::free(each); }
    template <class T, class G> T* make(i64 count, G value) {
        T* made = static_cast<T*>(std::malloc(size_t(count) * sizeof(T)));
        for (i64 i = 0; i < count; i++) made[i] = T(value());
        all.push_back(made);
        return made;
    }
    float* floats(i64 count, float scale, float mean = 0) { return make<float>(count, [&] { return mean + normal(scale); }); }
    rk_product product(int inner, int columns) {
        const float size = 0.6f / std::sqrt(float(inner)) / 64;
        return {make<u8>(i64(inner) * columns, [] { return 1 + below(255); }),
                make<float>(i64(inner) / GROUP * columns, [&] { return size * (0.5f + 0.01f * float(below(100))); }),
                floats(columns, 0.1f), columns, inner, columns};
    }
    rk_norm norm(int width) { return {floats(width, 0.1f, 1), floats(width, 0.1f)}; }
    rk_table table(int count, int width) {
        return {make<i8>(i64(count) * width, [] { return below(255) - 127; }), floats(i64(count) * width / GROUP, 0.001f, 0.005f), count};
    }
};

constexpr int WORDS = 50, POSITIONS = 70, TYPES = 2;
constexpr rk_activation ACTIVATIONS[] = {rk_activation::tanh, rk_activation::gelu, rk_activation::relu};
constexpr float NEAR = 0.15f;  // of logits around 1: an activation that is rounded to another integer moves them
float furthest = 0;

// Six rounds have each activation of the head with and without types.
rk_model random_model(Arrays& arrays, std::vector<rk_layer>& layers, int round) {
    const int widths[][2] = {{64, 1}, {64, 2}, {64, 4}, {128, 2}, {128, 8}, {192, 4}, {192, 12}, {192, 3}};
    const auto& chosen = widths[below(8)];
    const int hidden = chosen[0], wide = GROUP * (1 + below(5));
    layers.resize(size_t(1 + below(3)));
    for (rk_layer& layer : layers) {
        layer.query = arrays.product(hidden, hidden), layer.key = arrays.product(hidden, hidden);
        layer.value = arrays.product(hidden, hidden), layer.output = arrays.product(hidden, hidden);
        layer.attention_norm = arrays.norm(hidden);
        layer.up = arrays.product(hidden, wide), layer.down = arrays.product(wide, hidden);
        layer.output_norm = arrays.norm(hidden);
    }
    rk_model m{};
    m.layers = int(layers.size()), m.hidden = hidden, m.heads = chosen[1], m.intermediate = wide;
    const bool counted = below(2);
    m.position_offset = counted ? 2 : 0, m.skipped_id = counted ? 1 : -1;
    m.epsilon = 1e-5f, m.logit_bias = 0.3f;
    m.words = arrays.table(WORDS, hidden), m.positions = arrays.table(POSITIONS, hidden), m.types = round % 2 ? arrays.table(TYPES, hidden) : rk_table{};
    m.head_activation = ACTIVATIONS[round % 3];
    m.norm = arrays.norm(hidden);
    m.head = arrays.floats(i64(hidden) * hidden, 1 / std::sqrt(float(hidden)));
    m.head_bias = arrays.floats(hidden, 0.1f), m.logit = arrays.floats(hidden, 1);
    m.layer = layers.data();
    return m;
}

void check_model(int round) {
    Arrays arrays;
    std::vector<rk_layer> layers;
    const rk_model model = random_model(arrays, layers, round);
    const int length = 1 + below(POSITIONS - model.position_offset), pairs = 1 + below(5), rows = pairs * length;
    std::vector<i64> ids(static_cast<size_t>(rows)), types(static_cast<size_t>(rows));
    for (i64& id : ids) id = below(WORDS);
    if (model.types.count) for (i64& type : types) type = below(TYPES);
    std::vector<float> by_kind[2];
    for (const char* name : ENGINES) {
        if (!rk_usable(name)) continue;
        std::vector<float>& expected = by_kind[std::strcmp(name, "scalar-tiles") == 0 || std::strcmp(name, "amx") == 0];
        void* handle = rk_create(&model, name);
        if (!handle) fail("a model could not be made");
        for (int threads : {1, 2, 5}) {
            std::vector<float> found(static_cast<size_t>(pairs));
            if (below(2)) rk_expect(handle, threads);
            if (rk_logits(handle, ids.data(), types.data(), pairs, length, found.data(), threads, nullptr)) fail("a call");
            if (expected.empty()) expected = found;
            for (float logit : found) if (!std::isfinite(logit)) fail("a logit is not finite");
            if (std::memcmp(found.data(), expected.data(), found.size() * sizeof(float))) {
                std::printf("%s, %d threads, %d pairs of %d, width %d, %d heads\n", name, threads, pairs, length, model.hidden, model.heads);
                fail("other bits");
            }
        }
        for (int pair = 0; pair < pairs; pair++) {
            float alone;
            rk_logits(handle, &ids[size_t(pair * length)], &types[size_t(pair * length)], 1, length, &alone, 1, nullptr);
            if (std::memcmp(&alone, &expected[size_t(pair)], sizeof alone)) fail("a pair has other bits alone");
        }
        const i64 outside = WORDS;
        float logit;
        if (rk_logits(handle, &outside, types.data(), 1, 1, &logit, 1, nullptr) != BAD_ID) fail("a token outside of the vocabulary");
        const i64 word = 0, kind = model.types.count ? model.types.count : 1;
        if (rk_logits(handle, &word, &kind, 1, 1, &logit, 1, nullptr) != BAD_ID) fail("a type that the model has not");
        if (below(2)) rk_expect(handle, 3);
        rk_destroy(handle);
    }
    for (size_t pair = 0; pair < size_t(pairs); pair++) {
        furthest = std::fmax(furthest, std::fabs(by_kind[0][pair] - by_kind[1][pair]));
        if (!(furthest <= NEAR)) fail("a logit is another with tiles");
    }
}

// The activations of plain C++ beside those of the C library in double precision.
void check_activations() {
    for (double at = -12; at <= 12; at += 1.0 / 64) {
        const double expected[] = {std::tanh(at), at * std::erfc(-at / std::sqrt(2.0)) / 2, at > 0 ? at : 0};
        for (int which = 0; which < 3; which++) {
            const float found = active<Scalar>(Scalar::set(float(at)), ACTIVATIONS[which]).v[0];
            if (!(std::fabs(double(found) - expected[which]) < 1e-6)) fail("an activation");
        }
    }
}

// The product of plain C++ beside its formula in double precision.
void check_product() {
    Arrays arrays;
    const int inner = GROUP * (1 + below(4)), columns = 16 * (1 + below(5)), rows = 1 + below(20);
    const rk_product p = arrays.product(inner, columns);
    const Quantized q{arrays.make<i8>(i64(rows) * inner, [] { return 0; }), arrays.make<Range>(i64(rows) * inner / GROUP, [] { return Range{}; }), inner};
    const float* x = arrays.floats(i64(rows) * inner, 1);
    float* y = arrays.floats(i64(rows) * columns, 0);
    for (int r = 0; r < rows; r++) quantize_row<Scalar>(x + i64(r) * inner, q, r);
    product<Scalar>(q, rows, p, 0, columns, Biased<Scalar>{p, y, columns, 0});
    for (int r = 0; r < rows; r++)
        for (int n = 0; n < columns; n++) {
            double sum = p.bias[n];
            for (int k = 0; k < inner; k++) {
                const int w = p.weights[i64(n) / 16 * 16 * inner + k / 4 * 64 + n % 16 * 4 + k % 4] - 128;
                const double scale = p.scales[i64(k) / GROUP * columns + n];
                const Range& range = q.ranges[r * q.groups() + k / GROUP];
                const i8 a = q.integers[i64(r) * inner + k];
                if (std::fabs(double(a) * range.step - x[i64(r) * inner + k]) > 0.501 * range.step) fail("an integer is not the nearest");
                sum += double(a) * w * range.step * scale;
            }
            if (std::fabs(sum - y[i64(r) * columns + n]) > 1e-5 * (1 + std::fabs(sum))) fail("a product");
        }
}

}  // namespace

int main(int count, char** arguments) {
    const unsigned seed = count > 1 ? unsigned(std::atoi(arguments[1])) : 1;
    const int rounds = count > 2 ? std::atoi(arguments[2]) : 30;
    check_activations();
    for (int round = 0; round < rounds; round++) {
        generator.seed(seed + unsigned(round));
        check_product();
        check_model(round);
    }
    std::printf("engines:");
    for (const char* name : ENGINES) if (rk_usable(name)) std::printf(" %s", name);
    std::printf("\nwith and without tiles: %.2g at most\n%d models: all bits equal\n", double(furthest), rounds);
}
