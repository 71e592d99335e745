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
constexpr int64_t kParts = 16;      // sums over images that are added up at the end, at most,
constexpr int64_t kSumFloats = 1 << 20;  // and what they may hold together
constexpr int64_t kPixels = 96;     // whose cotangents stay in the first cache
constexpr int64_t kEntries = 96;    // of a kernel, of a whole tile, that stay in the first cache

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
  int64_t pixels() const { return out_height * out_width; }
  int64_t tiles() const { return (filters + kTile - 1) / kTile; }
  int64_t wide_of(int64_t filter) const {  // a tile of whole vectors that begins there
    return std::min(kTile, (filters - filter + kWidth - 1) / kWidth * kWidth);
  }
};

// Images with zeros around them, in `room` if there are any.
const float* padded(const Sizes& s, const float* images, int64_t count, std::vector<float>& room) {
  if (s.padded_height == s.height && s.padded_width == s.width) return images;
  room.resize(count * s.padded_height * s.row());
  for (int64_t y = 0; y < count * s.height; ++y) {
    int64_t to = y / s.height * s.padded_height + s.above + y % s.height;
    std::memcpy(&room[to * s.row() + s.before * s.channels], images + y * s.width * s.channels,
                s.width * s.channels * sizeof(float));
  }
  return room.data();
}

// Of rows of `filters` floats one tile from `filter` on, as whole vectors; in `room` if it is not
// all there is of them.
const float* tile_of(const Sizes& s, const float* rows, int64_t count, int64_t filter,
                     std::vector<float>& room) {
  int64_t wide = s.wide_of(filter), some = std::min(kTile, s.filters - filter);
  if (some == s.filters && some == wide) return rows;
  room.resize(count * wide);
  for (int64_t k = 0; k < count; ++k) {
    std::memcpy(&room[k * wide], rows + k * s.filters + filter, some * sizeof(float));
  }
  return room.data();
}

// out[m] (+)= sum over rows x count entries of pixel[m] * kernel, of N vectors of filters.
template <int M, int N>
void conv_tile(const Sizes& s, const float* const* pixel, const float* __restrict__ kernel,
               int64_t rows, int64_t count, bool first, float* const* out) {
  Vector total[M][N] = {};
  if (!first) {
    for (int m = 0; m < M; ++m)
      for (int n = 0; n < N; ++n) total[m][n] = *(const Vector*)(out[m] + n * kWidth);
  }
  const float* p[M];
  for (int m = 0; m < M; ++m) p[m] = pixel[m];
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < count; ++k, kernel += N * kWidth) {
      Vector row[N];
      for (int n = 0; n < N; ++n) row[n] = *(const Vector*)(kernel + n * kWidth);
      for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) total[m][n] += p[m][k] * row[n];
    }
    for (int m = 0; m < M; ++m) p[m] += s.row();
  }
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) *(Vector*)(out[m] + n * kWidth) = total[m][n];
}

// sum[m] += sum over images x rows x columns of image[m] * cotangent, of N vectors of filters.
template <int M, int N>
void gradient_tile(const Sizes& s, const float* __restrict__ image,
                   const float* __restrict__ cotangent, int64_t images, int64_t rows,
                   float* __restrict__ sum) {
  Vector total[M][N];
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) total[m][n] = *(const Vector*)(sum + (m * N + n) * kWidth);
  for (int64_t b = 0; b < images; ++b)
    for (int64_t y = 0; y < rows; ++y) {
      const float* pixel = image + (b * s.padded_height + y) * s.row();
      for (int64_t x = 0; x < s.out_width; ++x, pixel += s.channels, cotangent += N * kWidth) {
        Vector c[N];
        for (int n = 0; n < N; ++n) c[n] = *(const Vector*)(cotangent + n * kWidth);
        for (int m = 0; m < M; ++m)
          for (int n = 0; n < N; ++n) total[m][n] += pixel[m] * c[n];
      }
    }
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) *(Vector*)(sum + (m * N + n) * kWidth) = total[m][n];
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

// One tile of the filters of all pixels of an image; kernel and out are of this tile alone.
void conv_image(const Sizes& s, const float* image, const float* kernel, int64_t wide, float* out,
                int64_t stride) {
  const Tiles& tiles = kTiles[wide / kWidth - 1];
  int64_t room = kEntries * kTile / wide;
  int64_t some = std::min(room, s.entries()), high = std::max<int64_t>(1, room / s.entries());
  for (int64_t i = 0; i < s.tall; i += high)
    for (int64_t k = 0; k < s.entries(); k += some)
      for (int64_t q = 0, x = 0, y = i; q < s.pixels(); q += tiles.rows) {
        int64_t count = std::min<int64_t>(tiles.rows, s.pixels() - q);
        const float* from[kRows];
        float* to[kRows];
        for (int64_t m = 0; m < count; ++m) {
          from[m] = image + y * s.row() + x * s.channels + k;
          to[m] = out + (q + m) * stride;
          if (++x == s.out_width) x = 0, ++y;
        }
        tiles.conv[count - 1](s, from, kernel + (i * s.entries() + k) * wide,
                              std::min(high, s.tall - i), std::min(some, s.entries() - k),
                              i == 0 && k == 0, to);
      }
}

// One tile of the filters; cotangent and sum are of this tile alone.
void gradient_images(const Sizes& s, const float* images, const float* cotangent, int64_t count,
                     int64_t wide, float* sum) {
  const Tiles& tiles = kTiles[wide / kWidth - 1];
  int64_t step = count > 1 ? s.out_height : std::max<int64_t>(1, kPixels / s.out_width);
  for (int64_t y = 0; y < s.out_height; y += step)
    for (int64_t i = 0; i < s.tall; ++i)
      for (int64_t m = 0; m < s.entries(); m += tiles.rows) {
        int64_t rows = std::min<int64_t>(tiles.rows, s.entries() - m);
        tiles.gradient[rows - 1](s, images + (y + i) * s.row() + m,
                                 cotangent + y * s.out_width * wide, count,
                                 std::min(step, s.out_height - y),
                                 sum + (i * s.entries() + m) * wide);
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
  std::vector<std::vector<float>> rooms(s.tiles());
  std::vector<const float*> rows(s.tiles());
  for (int64_t t = 0; t < s.tiles(); ++t) {
    rows[t] = tile_of(s, kernel.typed_data(), s.tall * s.entries(), t * kTile, rooms[t]);
  }
  const float* image = images.typed_data();
  float* result_of_all = result->typed_data();
  share(pool, s.batch, [=, &rows](int64_t b) {
    std::vector<float> room, rounded;
    const float* from = padded(s, image + b * s.height * s.width * s.channels, 1, room);
    float* out = result_of_all + b * s.pixels() * s.filters;
    for (int64_t t = 0; t < s.tiles(); ++t) {
      int64_t f = t * kTile, wide = s.wide_of(f), some = std::min(kTile, s.filters - f);
      if (some == wide) {
        conv_image(s, from, rows[t], wide, out + f, s.filters);
        continue;
      }
      rounded.resize(s.pixels() * wide);
      conv_image(s, from, rows[t], wide, rounded.data(), wide);
      for (int64_t q = 0; q < s.pixels(); ++q) {
        std::memcpy(out + q * s.filters + f, &rounded[q * wide], some * sizeof(float));
      }
    }
  });
  return ffi::Error::Success();
}

ffi::Error kernel_gradient(ffi::ThreadPool pool, Floats images, Floats cotangent,
                           ffi::Span<const int64_t> pads, ffi::Result<Floats> result) {
  Sizes s = sizes(images.dimensions(), result->dimensions(), pads);
  int64_t rows = s.tall * s.entries(), size = rows * s.tiles() * kTile;
  // The images are divided into parts by the shapes alone, so that every sum has one order.
  int64_t parts = std::min(s.batch, std::clamp<int64_t>(kSumFloats / size, 1, kParts));
  int64_t group = std::max<int64_t>(1, kPixels / s.pixels());
  std::vector<float> sums(parts * size);
  const float *image = images.typed_data(), *change = cotangent.typed_data();
  float *sum = sums.data(), *out = result->typed_data();
  share(pool, parts * s.tiles(), [=](int64_t task) {
    int64_t part = task / s.tiles(), f = task % s.tiles() * kTile;
    std::vector<float> room, more;
    int64_t end = (part + 1) * s.batch / parts;
    for (int64_t b = part * s.batch / parts; b < end; b += group) {
      int64_t count = std::min(group, end - b);
      gradient_images(s, padded(s, image + b * s.height * s.width * s.channels, count, room),
                      tile_of(s, change + b * s.pixels() * s.filters, count * s.pixels(), f, more),
                      count, s.wide_of(f), sum + part * size + f * rows);
    }
  });
  share(pool, kParts, [=](int64_t piece) {
    for (int64_t r = piece * rows / kParts; r < (piece + 1) * rows / kParts; ++r)
      for (int64_t f = 0; f < s.filters; f += kTile) {
        const float* first = sum + f * rows + r * s.wide_of(f);
        float* to = out + r * s.filters + f;
        for (int64_t n = 0; n < std::min(kTile, s.filters - f); ++n) {
          float total = 0;
          for (int64_t part = 0; part < parts; ++part) total += first[part * size + n];
          to[n] = total;
        }
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
