// Convolution with stride 1 and the gradient of its kernel, float32, on a CPU.
//
// Both are products of a few rows with vectors of filters, summed up in registers. Rows are read
// where they lie: in an image [H, W, C] the C values of `wide` neighbours follow one another.

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

#ifdef __AVX512F__
constexpr int kWidth = 16, kVectors = 4, kSums = 24;  // 32 registers of 16 floats
#else
constexpr int kWidth = 8, kVectors = 2, kSums = 12;  // 16 registers of 8 floats
#endif
constexpr int kRows = 12;           // at most, in one tile
constexpr int64_t kTile = kVectors * kWidth;
constexpr int64_t kParts = 16;      // sums over images that are added up at the end
constexpr int64_t kPixels = 96;     // whose cotangents stay in the first cache
constexpr int64_t kEntries = 96;    // of a kernel that stay in the first cache

typedef float Vector __attribute__((vector_size(4 * kWidth), aligned(4)));

constexpr int rows_of(int vectors) { return std::min(kRows, kSums / vectors); }

// Calls work(0) to work(count - 1), on this thread and on those of the pool that are free.
void share(ffi::ThreadPool& pool, int64_t count, std::function<void(int64_t)> work) {
  struct State {
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable all;
  };
  auto state = std::make_shared<State>();
  std::function<void()> take = [state, count, work = std::move(work)] {
    for (int64_t k; (k = state->next++) < count;) {
      work(k);
      if (++state->done == count) {
        std::lock_guard<std::mutex> lock(state->mutex);
        state->all.notify_all();
      }
    }
  };
  for (int64_t k = 1; k < std::min<int64_t>(count, pool.num_threads()); ++k) {
    pool.Schedule(std::function<void()>(take));
  }
  take();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all.wait(lock, [&] { return state->done == count; });
}

struct Sizes {
  int64_t batch, height, width, channels;  // of the images
  int64_t above, before;                   // zeros around them
  int64_t padded_height, padded_width;
  int64_t tall, wide, filters;             // of the kernel
  int64_t out_height, out_width;
  int64_t row() const { return padded_width * channels; }
  int64_t entries() const { return wide * channels; }
  int64_t stride() const { return (filters + kWidth - 1) / kWidth * kWidth; }
};

// The image with zeros around it, in `room` if there are any.
const float* padded(const Sizes& s, const float* image, std::vector<float>& room) {
  if (s.padded_height == s.height && s.padded_width == s.width) return image;
  room.resize(s.padded_height * s.row());
  for (int64_t y = 0; y < s.height; ++y) {
    std::memcpy(&room[(s.above + y) * s.row() + s.before * s.channels],
                image + y * s.width * s.channels, s.width * s.channels * sizeof(float));
  }
  return room.data();
}

// Rows of `filters` floats as tiles of whole vectors: after each other, each with all its rows.
// Where a row is one such tile, the rows themselves.
const float* tiled(const Sizes& s, const float* rows, int64_t count, std::vector<float>& room) {
  if (s.filters % kWidth == 0 && s.filters <= kTile) return rows;
  room.resize(count * s.stride());
  for (int64_t f = 0; f < s.filters; f += kTile) {
    int64_t wide = std::min(kTile, s.stride() - f), some = std::min(kTile, s.filters - f);
    for (int64_t k = 0; k < count; ++k) {
      std::memcpy(&room[f * count + k * wide], rows + k * s.filters + f, some * sizeof(float));
    }
  }
  return room.data();
}

// out[m] (+)= sum over `count` entries k of pixel[m][k] * kernel[k], of N vectors of filters.
template <int M, int N>
void conv_tile(const float* const* pixel, const float* __restrict__ kernel, int64_t count,
               bool first, float* const* out) {
  Vector total[M][N] = {};
  if (!first) {
    for (int m = 0; m < M; ++m)
      for (int n = 0; n < N; ++n) total[m][n] = *(const Vector*)(out[m] + n * kWidth);
  }
  const float* p[M];
  for (int m = 0; m < M; ++m) p[m] = pixel[m];
  for (int64_t k = 0; k < count; ++k, kernel += N * kWidth) {
    Vector row[N];
    for (int n = 0; n < N; ++n) row[n] = *(const Vector*)(kernel + n * kWidth);
    for (int m = 0; m < M; ++m)
      for (int n = 0; n < N; ++n) total[m][n] += p[m][k] * row[n];
  }
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) *(Vector*)(out[m] + n * kWidth) = total[m][n];
}

// sum[m] += sum over rows x columns pixels of image[m] * cotangent, of N vectors of filters.
template <int M, int N>
void gradient_tile(const Sizes& s, const float* __restrict__ image,
                   const float* __restrict__ cotangent, int64_t rows, float* __restrict__ sum) {
  constexpr int64_t stride = N * kWidth;
  Vector total[M][N];
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) total[m][n] = *(const Vector*)(sum + m * stride + n * kWidth);
  for (int64_t y = 0; y < rows; ++y) {
    const float* pixel = image + y * s.row();
    const float* change = cotangent + y * s.out_width * stride;
    for (int64_t x = 0; x < s.out_width; ++x, pixel += s.channels, change += stride) {
      Vector c[N];
      for (int n = 0; n < N; ++n) c[n] = *(const Vector*)(change + n * kWidth);
      for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) total[m][n] += pixel[m] * c[n];
    }
  }
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) *(Vector*)(sum + m * stride + n * kWidth) = total[m][n];
}

using ConvTile = decltype(&conv_tile<1, 1>);
using GradientTile = decltype(&gradient_tile<1, 1>);
struct Tiles { int rows; std::array<ConvTile, kRows> conv; std::array<GradientTile, kRows> gradient; };

template <int N, size_t... M>
constexpr Tiles tiles_of(std::index_sequence<M...>) {
  return {rows_of(N), {conv_tile<M + 1, N>...}, {gradient_tile<M + 1, N>...}};
}
template <size_t... N>
constexpr std::array<Tiles, sizeof...(N)> all_tiles(std::index_sequence<N...>) {
  return {tiles_of<N + 1>(std::make_index_sequence<rows_of(N + 1)>())...};
}
const auto kTiles = all_tiles(std::make_index_sequence<kVectors>());

const Tiles& tiles_for(const Sizes& s, int64_t filter) {
  return kTiles[std::min<int64_t>(kVectors, (s.stride() - filter) / kWidth) - 1];
}

// kernel: tiled.
void conv_image(const Sizes& s, const float* image, const float* kernel, float* out) {
  int64_t rows = s.tall * s.entries(), pixels = s.out_height * s.out_width;
  std::vector<float> room;
  bool direct = s.stride() == s.filters;
  if (!direct) room.resize(pixels * s.stride());
  float* sums = direct ? out : room.data();
  for (int64_t f = 0; f < s.stride(); f += kTile) {
    const Tiles& tiles = tiles_for(s, f);
    int64_t wide = std::min(kTile, s.stride() - f);
    for (int64_t i = 0; i < s.tall; ++i)
      for (int64_t k = 0; k < s.entries(); k += kEntries)
        for (int64_t q = 0, x = 0, y = i; q < pixels; q += tiles.rows) {
          int64_t count = std::min<int64_t>(tiles.rows, pixels - q);
          const float* from[kRows];
          float* to[kRows];
          for (int64_t m = 0; m < count; ++m) {
            from[m] = image + y * s.row() + x * s.channels + k;
            to[m] = sums + (q + m) * s.stride() + f;
            if (++x == s.out_width) x = 0, ++y;
          }
          tiles.conv[count - 1](from, kernel + f * rows + (i * s.entries() + k) * wide,
                                std::min(kEntries, s.entries() - k), i == 0 && k == 0, to);
        }
  }
  for (int64_t q = 0; !direct && q < pixels; ++q) {
    std::memcpy(out + q * s.filters, sums + q * s.stride(), s.filters * sizeof(float));
  }
}

// cotangent and sum: tiled.
void gradient_image(const Sizes& s, const float* image, const float* cotangent, float* sum) {
  int64_t rows = s.tall * s.entries(), pixels = s.out_height * s.out_width;
  int64_t step = std::max<int64_t>(1, kPixels / s.out_width);
  for (int64_t y = 0; y < s.out_height; y += step)
    for (int64_t i = 0; i < s.tall; ++i)
      for (int64_t f = 0; f < s.stride(); f += kTile) {
        const Tiles& tiles = tiles_for(s, f);
        int64_t wide = std::min(kTile, s.stride() - f);
        for (int64_t m = 0; m < s.entries(); m += tiles.rows) {
          int64_t count = std::min<int64_t>(tiles.rows, s.entries() - m);
          tiles.gradient[count - 1](s, image + (y + i) * s.row() + m,
                                    cotangent + f * pixels + y * s.out_width * wide,
                                    std::min(step, s.out_height - y),
                                    sum + f * rows + (i * s.entries() + m) * wide);
        }
      }
}

Sizes sizes(ffi::Span<const int64_t> images, ffi::Span<const int64_t> kernel,
            ffi::Span<const int64_t> pads) {
  Sizes s{images[0], images[1], images[2], images[3], pads[0], pads[2]};
  s.padded_height = s.height + pads[0] + pads[1];
  s.padded_width = s.width + pads[2] + pads[3];
  s.tall = kernel[0], s.wide = kernel[1], s.filters = kernel[3];
  s.out_height = s.padded_height - s.tall + 1, s.out_width = s.padded_width - s.wide + 1;
  return s;
}

using Floats = ffi::Buffer<ffi::F32>;

ffi::Error convolve(ffi::ThreadPool pool, Floats images, Floats kernel,
                    ffi::Span<const int64_t> pads, ffi::Result<Floats> result) {
  Sizes s = sizes(images.dimensions(), kernel.dimensions(), pads);
  std::vector<float> room;
  const float* rows = tiled(s, kernel.typed_data(), s.tall * s.entries(), room);
  const float* image = images.typed_data();
  float* out = result->typed_data();
  share(pool, s.batch, [=](int64_t b) {
    std::vector<float> room;
    conv_image(s, padded(s, image + b * s.height * s.width * s.channels, room), rows,
               out + b * s.out_height * s.out_width * s.filters);
  });
  return ffi::Error::Success();
}

ffi::Error kernel_gradient(ffi::ThreadPool pool, Floats images, Floats cotangent,
                           ffi::Span<const int64_t> pads, ffi::Result<Floats> result) {
  Sizes s = sizes(images.dimensions(), result->dimensions(), pads);
  int64_t rows = s.tall * s.entries(), size = rows * s.stride();
  int64_t parts = std::min(kParts, s.batch), pixels = s.out_height * s.out_width;
  std::vector<float> sums(parts * size);
  const float *image = images.typed_data(), *change = cotangent.typed_data();
  float *sum = sums.data(), *out = result->typed_data();
  share(pool, parts, [=](int64_t k) {
    std::vector<float> room, more;
    for (int64_t b = k * s.batch / parts; b < (k + 1) * s.batch / parts; ++b) {
      gradient_image(s, padded(s, image + b * s.height * s.width * s.channels, room),
                     tiled(s, change + b * pixels * s.filters, pixels, more), sum + k * size);
    }
  });
  share(pool, kParts, [=](int64_t part) {
    for (int64_t r = part * rows / kParts; r < (part + 1) * rows / kParts; ++r)
      for (int64_t f = 0; f < s.filters; f += kTile) {
        const float* first = sum + f * rows + r * std::min(kTile, s.stride() - f);
        float* to = out + r * s.filters + f;
        int64_t some = std::min(kTile, s.filters - f);
        for (int64_t n = 0; n < some; ++n) to[n] = 0;
        for (int64_t k = 0; k < parts; ++k)
          for (int64_t n = 0; n < some; ++n) to[n] += first[k * size + n];
      }
  });
  return ffi::Error::Success();
}

auto binding() {
  return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Floats>().Arg<Floats>()
      .Attr<ffi::Span<const int64_t>>("pads").Ret<Floats>();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(Convolve, convolve, binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(KernelGradient, kernel_gradient, binding());
