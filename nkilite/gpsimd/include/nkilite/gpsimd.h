// Custom operators on the GpSimd Engine, as nkilite runs them on a CPU: tensors, accessors, dtypes and cores.
//
// An operator is a function of this form:
//
//     void scaled(nkilite::Tensor out, const nkilite::Tensor& x, double factor);
//
// Tensors taken by const reference are read, others are written; numbers are double, int64_t or bool. What it does to
// memory that is not its own is up to it, as in any C++ program; with NKILITE_DEBUG accessors check their bounds.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "assert.h"  // ours: a failed assertion is an error of the operator, not the end of the process

namespace nkilite {

// --- dtypes ------------------------------------------------------------------------------------------------------

enum class DType : int64_t { float32, bfloat16, float16, int8, int16, int32, uint8, uint16, uint32 };

namespace detail {

inline float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float half_to_float(uint16_t half) {
  const uint32_t sign = uint32_t(half & 0x8000u) << 16, exponent = half >> 10 & 31u, fraction = half & 0x3ffu;
  if (exponent == 31) return from_bits(sign | 0x7f800000u | fraction << 13);
  if (exponent == 0) {
    const float small = std::ldexp(float(fraction), -24);
    return sign ? -small : small;
  }
  return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

inline uint16_t float_to_half(float value) {
  const uint32_t bits = to_bits(value), magnitude = bits & 0x7fffffffu;
  const uint16_t sign = uint16_t(bits >> 16 & 0x8000u);
  if (magnitude > 0x7f800000u) return uint16_t(sign | 0x7e00u);
  if (magnitude >= 0x47800000u) return uint16_t(sign | 0x7c00u);
  if (magnitude < 0x38800000u) return uint16_t(sign | uint16_t(std::nearbyint(std::ldexp(from_bits(magnitude), 24))));
  return uint16_t(sign | ((magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13));
}

inline uint16_t float_to_bfloat16(float value) {
  const uint32_t bits = to_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return uint16_t(bits >> 16 | 0x40u);
  return uint16_t((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace detail

// 16-bit floats: stored as such, computed with as float, rounded to nearest even.
struct bfloat16 {
  uint16_t bits = 0;
  bfloat16() = default;
  template <typename T, typename = std::enable_if_t<std::is_arithmetic<T>::value>>
  bfloat16(T value) : bits(detail::float_to_bfloat16(float(value))) {}
  operator float() const { return detail::from_bits(uint32_t(bits) << 16); }
  template <typename T> bfloat16& operator+=(T other) { return *this = float(*this) + float(other); }
  template <typename T> bfloat16& operator-=(T other) { return *this = float(*this) - float(other); }
  template <typename T> bfloat16& operator*=(T other) { return *this = float(*this) * float(other); }
  template <typename T> bfloat16& operator/=(T other) { return *this = float(*this) / float(other); }
};

struct half {
  uint16_t bits = 0;
  half() = default;
  template <typename T, typename = std::enable_if_t<std::is_arithmetic<T>::value>>
  half(T value) : bits(detail::float_to_half(float(value))) {}
  operator float() const { return detail::half_to_float(bits); }
  template <typename T> half& operator+=(T other) { return *this = float(*this) + float(other); }
  template <typename T> half& operator-=(T other) { return *this = float(*this) - float(other); }
  template <typename T> half& operator*=(T other) { return *this = float(*this) * float(other); }
  template <typename T> half& operator/=(T other) { return *this = float(*this) / float(other); }
};

template <typename T> struct dtype_of;
template <> struct dtype_of<float> { static constexpr DType value = DType::float32; };
template <> struct dtype_of<bfloat16> { static constexpr DType value = DType::bfloat16; };
template <> struct dtype_of<half> { static constexpr DType value = DType::float16; };
template <> struct dtype_of<int8_t> { static constexpr DType value = DType::int8; };
template <> struct dtype_of<int16_t> { static constexpr DType value = DType::int16; };
template <> struct dtype_of<int32_t> { static constexpr DType value = DType::int32; };
template <> struct dtype_of<uint8_t> { static constexpr DType value = DType::uint8; };
template <> struct dtype_of<uint16_t> { static constexpr DType value = DType::uint16; };
template <> struct dtype_of<uint32_t> { static constexpr DType value = DType::uint32; };

inline const char* name_of(DType dtype) {
  constexpr const char* names[] = {"float32", "bfloat16", "float16", "int8",  "int16",
                                   "int32",   "uint8",    "uint16",  "uint32"};
  return names[int64_t(dtype)];
}

// Calls body with a value of the type: dispatch(x.dtype(), [&](auto zero) { using T = decltype(zero); ... });
template <typename Body> auto dispatch(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::float32: return body(float());
    case DType::bfloat16: return body(bfloat16());
    case DType::float16: return body(half());
    case DType::int8: return body(int8_t());
    case DType::int16: return body(int16_t());
    case DType::int32: return body(int32_t());
    case DType::uint8: return body(uint8_t());
    case DType::uint16: return body(uint16_t());
    case DType::uint32: return body(uint32_t());
  }
  throw std::logic_error("unknown dtype");
}

inline int64_t size_of(DType dtype) {
  return dispatch(dtype, [](auto zero) { return int64_t(sizeof zero); });
}

// --- cores -------------------------------------------------------------------------------------------------------

constexpr int64_t PARTITIONS_PER_CORE = 16;

// The core an operator runs on: `id` of `count`. It runs on one after the other here, and side by side on the chip.
struct Core {
  int64_t id = 0, count = 1;
};

namespace detail {
inline thread_local Core core;
inline thread_local void (*release)() = nullptr;  // what a core has taken and not given back, when it is done
}  // namespace detail

inline Core core() { return detail::core; }

// --- errors ------------------------------------------------------------------------------------------------------

[[noreturn]] inline void fail(const std::string& message) { throw std::runtime_error(message); }

namespace detail {

inline void check_index(int64_t index, int64_t size, const char* what) {
#ifdef NKILITE_DEBUG
  if (index < 0 || index >= size)
    fail(std::string(what) + " " + std::to_string(index) + " is not in [0, " + std::to_string(size) + ")");
#else
  (void)index, (void)size, (void)what;
#endif
}

}  // namespace detail

// --- accessors ---------------------------------------------------------------------------------------------------

// Elements by index, one dimension after the other: a[p][f].
template <typename T, size_t N> class Accessor {
 public:
  Accessor(T* data, const int64_t* sizes, const int64_t* strides) : data_(data), sizes_(sizes), strides_(strides) {}
  decltype(auto) operator[](int64_t index) const {
    detail::check_index(index, sizes_[0], "index");
    if constexpr (N == 1) return (data_[index * strides_[0]]);
    else return Accessor<T, N - 1>(data_ + index * strides_[0], sizes_ + 1, strides_ + 1);
  }
  int64_t size(int64_t dimension) const {
    detail::check_index(dimension, N, "dimension");
    return sizes_[dimension];
  }
  int64_t stride(int64_t dimension) const {
    detail::check_index(dimension, N, "dimension");
    return strides_[dimension];
  }
  T* data() const { return data_; }

 private:
  T* data_;
  const int64_t *sizes_, *strides_;
};

namespace detail {

constexpr int64_t MOST_DIMENSIONS = 8, MOST_ELEMENTS = int64_t(1) << 40;

// Sizes and strides (of elements) of some memory.
struct Layout {
  int64_t ndim = 0, sizes[MOST_DIMENSIONS] = {}, strides[MOST_DIMENSIONS] = {};

  int64_t count(int64_t first = 0) const {
    int64_t found = 1;
    for (int64_t i = first; i < ndim; i++) found *= sizes[i];
    return found;
  }
  bool dense(int64_t first = 0) const {
    int64_t expected = 1;
    for (int64_t i = ndim - 1; i >= first; i--) {
      if (sizes[i] != 1 && strides[i] != expected) return false;
      expected *= sizes[i];
    }
    return true;
  }
  // Where element `index` of the dimensions from `first` on is, in row-major order.
  int64_t place(int64_t index, int64_t first = 0) const {
    int64_t found = 0;
    for (int64_t i = ndim - 1; i >= first; i--) {
      found += index % sizes[i] * strides[i];
      index /= sizes[i];
    }
    return found;
  }
};

}  // namespace detail

// A partition: its elements in row-major order of the free dimensions.
template <typename T> class Row {
 public:
  Row(T* data, const detail::Layout* layout, bool dense) : data_(data), layout_(layout), dense_(dense) {}
  T& operator[](int64_t index) const {
    detail::check_index(index, size(), "column");
    return data_[dense_ ? index : layout_->place(index, 1)];
  }
  int64_t size() const { return layout_->count(1); }

 private:
  T* data_;
  const detail::Layout* layout_;
  bool dense_;
};

// A tile: rows for partitions. Those of this core are first() to end() - 1: 16 for each of eight cores, or all for one.
template <typename T> class Tile {
 public:
  Tile(T* data, const detail::Layout* layout) : data_(data), layout_(layout), dense_(layout->dense(1)) {}
  Row<T> operator[](int64_t partition) const {
    detail::check_index(partition, partitions(), "partition");
    return Row<T>(data_ + partition * layout_->strides[0], layout_, dense_);
  }
  int64_t partitions() const { return layout_->sizes[0]; }
  int64_t columns() const { return layout_->count(1); }
  int64_t first() const { return bound(core().id); }
  int64_t end() const { return core().id + 1 == core().count ? partitions() : bound(core().id + 1); }

 private:
  int64_t bound(int64_t id) const {
    const int64_t start = core().count == 1 ? 0 : id * PARTITIONS_PER_CORE;
    return start < partitions() ? start : partitions();
  }
  T* data_;
  const detail::Layout* layout_;
  bool dense_;
};

// --- tensors -----------------------------------------------------------------------------------------------------

// Memory with a shape. It is that of an operand, or the tensor's own; copies of a tensor share it.
class Tensor {
 public:
  struct State {
    void* data = nullptr;
    DType dtype = DType::float32;
    detail::Layout layout;
    std::vector<char> own;
    int64_t readers = 0, writers = 0;  // streams that are open
    int policy = 0;
  };

  Tensor() : Tensor(make({0}, DType::float32)) {}  // no elements
  explicit Tensor(std::shared_ptr<State> state) : state_(std::move(state)) {}

  static Tensor make(const std::vector<int64_t>& sizes, DType dtype) {
    if (sizes.size() > detail::MOST_DIMENSIONS)
      fail("a tensor has at most " + std::to_string(detail::MOST_DIMENSIONS) + " dimensions, not " + std::to_string(sizes.size()));
    auto state = std::make_shared<State>();
    state->dtype = dtype;
    state->layout.ndim = int64_t(sizes.size());
    int64_t stride = 1;
    for (int64_t i = state->layout.ndim - 1; i >= 0; i--) {
      if (sizes[i] < 0) fail("size " + std::to_string(sizes[i]) + " of a tensor is negative");
      if (sizes[i] > 0 && stride > detail::MOST_ELEMENTS / sizes[i]) fail("a tensor has too many elements");
      state->layout.sizes[i] = sizes[i];
      state->layout.strides[i] = stride;
      stride *= sizes[i];
    }
    state->own.resize(size_t(stride * size_of(dtype)));
    state->data = state->own.data();
    return Tensor(state);
  }

  DType dtype() const { return state_->dtype; }
  int64_t dim() const { return state_->layout.ndim; }
  int64_t numel() const { return state_->layout.count(); }
  int64_t partitions() const { return size(0); }
  int64_t columns() const { return state_->layout.count(1); }
  int64_t size(int64_t dimension) const { return state_->layout.sizes[checked(dimension)]; }
  int64_t stride(int64_t dimension) const { return state_->layout.strides[checked(dimension)]; }

  // Elements: accessor<float, 2>()[p][f]. Dtype and number of dimensions have to be those of the tensor.
  template <typename T, size_t N> Accessor<const T, N> accessor() const& {
    require<T>(N);
    return Accessor<const T, N>(pointer<T>(), state_->layout.sizes, state_->layout.strides);
  }
  template <typename T, size_t N> Accessor<T, N> accessor() & {
    require<T>(N);
    return Accessor<T, N>(pointer<T>(), state_->layout.sizes, state_->layout.strides);
  }

  // Rows: tile<float>()[p][i], whatever the number of free dimensions.
  template <typename T> Tile<const T> tile() const& { return Tile<const T>(rows<T>(), &state_->layout); }
  template <typename T> Tile<T> tile() & { return Tile<T>(rows<T>(), &state_->layout); }

  template <typename T> void require(int64_t dimensions = -1) const {
    if (dtype_of<std::remove_const_t<T>>::value != dtype())
      fail(std::string("the accessor is for ") + name_of(dtype_of<std::remove_const_t<T>>::value) + ", the tensor is " + name_of(dtype()));
    if (dimensions >= 0 && dimensions != dim())
      fail("the accessor is for " + std::to_string(dimensions) + " dimensions, the tensor has " + std::to_string(dim()));
  }
  template <typename T> T* pointer() const { return static_cast<T*>(state_->data); }
  State& state() const { return *state_; }

  // The elements of another tensor of as many, and of the same dtype.
  void assign(const Tensor& other) const {
    if (other.numel() != numel() || other.dtype() != dtype())
      fail("the operator returns " + std::to_string(other.numel()) + " elements of " + name_of(other.dtype()) +
           "; the destination has " + std::to_string(numel()) + " of " + name_of(dtype()));
    dispatch(dtype(), [&](auto zero) {
      using T = decltype(zero);
      const auto &source = other.state_->layout, &target = state_->layout;
      const bool dense = source.dense() && target.dense();
      for (int64_t i = 0, n = numel(); i < n; i++)
        pointer<T>()[dense ? i : target.place(i)] = other.pointer<T>()[dense ? i : source.place(i)];
    });
  }

 private:
  int64_t checked(int64_t dimension) const {
    const int64_t found = dimension < 0 ? dimension + dim() : dimension;
    if (found < 0 || found >= dim())
      fail("dimension " + std::to_string(dimension) + " of a tensor of " + std::to_string(dim()));
    return found;
  }
  template <typename T> T* rows() const {
    require<T>();
    if (dim() == 0) fail("a tensor without dimensions has no partitions");
    return pointer<T>();
  }

  std::shared_ptr<State> state_;
};

}  // namespace nkilite
