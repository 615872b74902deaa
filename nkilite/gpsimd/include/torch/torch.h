// The subset of torch's C++ interface that custom operators of the vendor's use, on nkilite's tensors: factories,
// elementwise functions, and element, stream and TCM accessors. Names and meanings are those of the public reference.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <ostream>
#include <vector>

#include "nkilite/entry.h"

namespace c10 {

using BFloat16 = nkilite::bfloat16;
using Half = nkilite::half;
using ScalarType = nkilite::DType;

// A number.
class Scalar {
 public:
  Scalar() = default;
  template <typename T, typename = std::enable_if_t<std::is_arithmetic<T>::value>>
  Scalar(T value) : value_(double(value)), whole_(!std::is_floating_point<T>::value) {}
  template <typename T> T to() const { return T(value_); }
  double toDouble() const { return value_; }
  float toFloat() const { return float(value_); }
  int64_t toLong() const { return int64_t(value_); }
  int toInt() const { return int(value_); }
  bool isFloatingPoint() const { return !whole_; }
  bool isIntegral(bool = false) const { return whole_; }

 private:
  double value_ = 0;
  bool whole_ = false;
};

struct TensorOptions {
  TensorOptions(ScalarType dtype) : value(dtype) {}
  ScalarType value;
};

class IntArrayRef {
 public:
  IntArrayRef() = default;
  IntArrayRef(const int64_t* data, size_t size) : sizes_(data, data + size) {}
  IntArrayRef(std::vector<int64_t> sizes) : sizes_(std::move(sizes)) {}
  template <typename T, typename = std::enable_if_t<std::is_integral<T>::value>>
  IntArrayRef(std::initializer_list<T> sizes) : sizes_(sizes.begin(), sizes.end()) {}
  size_t size() const { return sizes_.size(); }
  bool empty() const { return sizes_.empty(); }
  int64_t operator[](size_t index) const {
    nkilite::detail::check_index(int64_t(index), int64_t(sizes_.size()), "dimension");
    return sizes_[index];
  }
  auto begin() const { return sizes_.begin(); }
  auto end() const { return sizes_.end(); }
  const std::vector<int64_t>& vec() const { return sizes_; }
  bool operator==(const IntArrayRef& other) const { return sizes_ == other.sizes_; }
  bool operator!=(const IntArrayRef& other) const { return sizes_ != other.sizes_; }

 private:
  std::vector<int64_t> sizes_;
};

}  // namespace c10

namespace torch {

using c10::BFloat16;
using c10::Half;
using c10::IntArrayRef;
using c10::Scalar;
using c10::ScalarType;
using c10::TensorOptions;

constexpr ScalarType kFloat = ScalarType::float32, kFloat32 = kFloat, kBFloat16 = ScalarType::bfloat16,
                     kHalf = ScalarType::float16, kFloat16 = kHalf, kInt = ScalarType::int32, kInt32 = kInt,
                     kChar = ScalarType::int8, kInt8 = kChar, kShort = ScalarType::int16, kInt16 = kShort,
                     kByte = ScalarType::uint8, kUInt8 = kByte;

struct CoherencyEnforcer {
  enum Policy { COHERENT, INCOHERENT_VERBOSE, INCOHERENT_QUIET };
};

template <typename T, size_t N, bool read_only = false>
using TensorAccessor = nkilite::Accessor<std::conditional_t<read_only, const T, T>, N>;

namespace neuron {
namespace detail {

constexpr size_t TCM_BYTES = 16 * 1024, STREAM_BYTES = 4 * 1024;

// What is left of a core's tightly coupled memory.
struct Pool {
  size_t used = 0;
  std::map<void*, size_t> blocks;
  bool take(size_t bytes);
};
inline thread_local Pool pool;

// An operator has all of it when it begins, whatever the one before has done.
inline void release() {
  for (const auto& block : pool.blocks) std::free(block.first);
  pool = {};
}

inline bool Pool::take(size_t bytes) {
  nkilite::detail::release = release;
  if (bytes > TCM_BYTES - used) return false;
  used += bytes;
  return true;
}

}  // namespace detail

inline void* tcm_malloc(size_t bytes) {
  if (!detail::pool.take(bytes)) return nullptr;
  void* block = std::malloc(bytes ? bytes : 1);
  if (block) detail::pool.blocks[block] = bytes;
  else detail::pool.used -= bytes;
  return block;
}

inline void tcm_free(void* block) {
  if (!block) return;
  const auto found = detail::pool.blocks.find(block);
  if (found == detail::pool.blocks.end()) nkilite::fail("tcm_free of memory that tcm_malloc did not give");
  detail::pool.used -= found->second;
  detail::pool.blocks.erase(found);
  std::free(block);
}

}  // namespace neuron

namespace detail {

// A stream on a tensor while it is open: what the policy of coherence allows, and its share of the TCM.
class Stream {
 public:
  Stream(std::shared_ptr<nkilite::Tensor> tensor, bool writes) : tensor_(std::move(tensor)), writes_(writes) {
    auto& state = tensor_->state();
    if (state.writers || (writes && state.readers)) {
      const char* problem = "a stream is opened on a tensor that an open stream writes, or reads while this one writes";
      if (state.policy == CoherencyEnforcer::COHERENT) nkilite::fail(problem);
      if (state.policy == CoherencyEnforcer::INCOHERENT_VERBOSE) std::fprintf(stderr, "warning: %s\n", problem);
    }
    held_ = neuron::detail::pool.take(neuron::detail::STREAM_BYTES);
    ++(writes_ ? state.writers : state.readers);
  }
  Stream(const Stream&) = delete;
  Stream(Stream&& other) noexcept
      : tensor_(std::move(other.tensor_)), writes_(other.writes_), held_(other.held_), next_(other.next_) {
    other.tensor_ = nullptr;
  }
  ~Stream() { close(); }
  int close() {
    if (!tensor_) return 0;
    --(writes_ ? tensor_->state().writers : tensor_->state().readers);
    auto& used = neuron::detail::pool.used;
    if (held_) used -= std::min(used, neuron::detail::STREAM_BYTES);
    tensor_ = nullptr;
    return 0;
  }
  int64_t advance() {
    if (!tensor_) nkilite::fail("a stream is used after it was closed");
    if (next_ >= tensor_->numel()) nkilite::fail("a stream is used past the last element of its tensor");
    return tensor_->state().layout.place(next_++);
  }
  template <typename T> T* data() const { return tensor_->pointer<T>(); }

 private:
  std::shared_ptr<nkilite::Tensor> tensor_;
  bool writes_, held_ = false;
  int64_t next_ = 0;
};

}  // namespace detail

template <typename T> class TensorReadStreamAccessor : public detail::Stream {
 public:
  explicit TensorReadStreamAccessor(const nkilite::Tensor& tensor)
      : Stream(std::make_shared<nkilite::Tensor>(tensor), false) {}
  T read() {
    const int64_t at = advance();
    return data<T>()[at];
  }
};

template <typename T> class TensorWriteStreamAccessor : public detail::Stream {
 public:
  explicit TensorWriteStreamAccessor(const nkilite::Tensor& tensor)
      : Stream(std::make_shared<nkilite::Tensor>(tensor), true) {}
  void write(T value) {
    const int64_t at = advance();
    data<T>()[at] = value;
  }
};

template <bool read_only> class TensorTcmAccessor {
 public:
  explicit TensorTcmAccessor(const nkilite::Tensor& tensor) : tensor_(tensor) {}

  template <typename T> void tensor_to_tcm(T* tcm, size_t offset, size_t count) const {
    copy<T>(offset, count, [&](size_t i, T& element) { tcm[i] = element; });
  }
  template <typename T> void tcm_to_tensor(const T* tcm, size_t offset, size_t count) const {
    static_assert(!read_only, "the tensor is const: nothing can be written to it");
    copy<T>(offset, count, [&](size_t i, T& element) { element = tcm[i]; });
  }

 private:
  template <typename T, typename Each> void copy(size_t offset, size_t count, Each each) const {
    tensor_.template require<T>();
    const auto& layout = tensor_.state().layout;
    const size_t size = size_t(layout.count());
    if (offset > size || count > size - offset)
      nkilite::fail("elements " + std::to_string(offset) + " to " + std::to_string(offset + count) +
                    " of a tensor of " + std::to_string(layout.count()));
    T* data = tensor_.template pointer<T>();
    const bool dense = layout.dense();
    for (size_t i = 0; i < count; i++) each(i, data[dense ? offset + i : size_t(layout.place(int64_t(offset + i)))]);
  }
  nkilite::Tensor tensor_;
};

class Tensor : public nkilite::Tensor {
 public:
  Tensor() = default;
  Tensor(const nkilite::Tensor& tensor) : nkilite::Tensor(tensor) {}

  IntArrayRef sizes() const { return IntArrayRef(state().layout.sizes, size_t(dim())); }
  IntArrayRef strides() const { return IntArrayRef(state().layout.strides, size_t(dim())); }
  ScalarType scalar_type() const { return dtype(); }
  template <typename T> T* data_ptr() const {
    require<T>();
    return pointer<T>();
  }

  template <typename T, size_t N> TensorAccessor<T, N, true> accessor() const& {
    one_core();
    return nkilite::Tensor::accessor<T, N>();
  }
  template <typename T, size_t N> TensorAccessor<T, N, false> accessor() & {
    one_core();
    return nkilite::Tensor::accessor<T, N>();
  }
  template <typename T> TensorReadStreamAccessor<T> read_stream_accessor() const& {
    one_core();
    require<T>();
    return TensorReadStreamAccessor<T>(*this);
  }
  template <typename T> TensorWriteStreamAccessor<T> write_stream_accessor() & {
    one_core();
    require<T>();
    return TensorWriteStreamAccessor<T>(*this);
  }
  TensorTcmAccessor<true> tcm_accessor() const& { return TensorTcmAccessor<true>(*this); }
  TensorTcmAccessor<false> tcm_accessor() & { return TensorTcmAccessor<false>(*this); }

  CoherencyEnforcer::Policy get_accessor_coherence_policy() const {
    return CoherencyEnforcer::Policy(state().policy);
  }
  void set_accessor_coherence_policy(CoherencyEnforcer::Policy policy) const { state().policy = policy; }

  Tensor& fill_(const Scalar& value) {
    nkilite::dispatch(dtype(), [&](auto zero) {
      using T = decltype(zero);
      for (int64_t i = 0, n = numel(); i < n; i++) pointer<T>()[state().layout.place(i)] = value.to<T>();
    });
    return *this;
  }

 private:
  // On several cores only the TCM accessor is defined: the others share state.
  static void one_core() {
    if (nkilite::core().count > 1) nkilite::fail("on several cores a tensor is reached by its tcm_accessor alone");
  }
};

// --- factories ---------------------------------------------------------------------------------------------------

inline Tensor empty(IntArrayRef size, TensorOptions options) { return nkilite::Tensor::make(size.vec(), options.value); }
inline Tensor zeros(IntArrayRef size, TensorOptions options) { return empty(size, options); }  // new memory is zero
inline Tensor full(IntArrayRef size, const Scalar& value, TensorOptions options) {
  Tensor result = empty(size, options);
  result.fill_(value);
  return result;
}
inline Tensor ones(IntArrayRef size, TensorOptions options) { return full(size, 1, options); }
inline Tensor eye(int64_t n, int64_t m, TensorOptions options) {
  Tensor result = zeros({n, m}, options);
  nkilite::dispatch(result.dtype(), [&](auto zero) {
    using T = decltype(zero);
    for (int64_t i = 0; i < n && i < m; i++) result.pointer<T>()[i * m + i] = T(1);
  });
  return result;
}

// --- elementwise functions ---------------------------------------------------------------------------------------

namespace detail {

inline void same(const nkilite::Tensor& a, const nkilite::Tensor& b) {
  if (a.numel() != b.numel() || a.dtype() != b.dtype())
    nkilite::fail(std::string("operands differ: ") + std::to_string(a.numel()) + " elements of " +
                  nkilite::name_of(a.dtype()) + " and " + std::to_string(b.numel()) + " of " +
                  nkilite::name_of(b.dtype()) + "; there is no broadcasting");
}

// Integers are computed with as int64_t, floats as float.
template <typename T> using Wide = std::conditional_t<std::is_integral<T>::value, int64_t, float>;

template <bool whole, typename Body> Tensor& unary(Tensor& result, const Tensor& self, Body body) {
  same(result, self);
  nkilite::dispatch(self.dtype(), [&](auto zero) {
    using T = decltype(zero);
    if constexpr (whole && !std::is_integral<T>::value) nkilite::fail("a bitwise function takes integers");
    else
      for (int64_t i = 0, n = self.numel(); i < n; i++)
        result.pointer<T>()[result.state().layout.place(i)] =
            T(body(Wide<T>(self.pointer<T>()[self.state().layout.place(i)])));
  });
  return result;
}

template <bool whole, typename Body> Tensor& binary(Tensor& result, const Tensor& a, const Tensor& b, Body body) {
  same(a, b);
  same(result, a);
  nkilite::dispatch(a.dtype(), [&](auto zero) {
    using T = decltype(zero);
    if constexpr (whole && !std::is_integral<T>::value) nkilite::fail("a bitwise function takes integers");
    else
      for (int64_t i = 0, n = a.numel(); i < n; i++)
        result.pointer<T>()[result.state().layout.place(i)] =
            T(body(Wide<T>(a.pointer<T>()[a.state().layout.place(i)]), Wide<T>(b.pointer<T>()[b.state().layout.place(i)])));
  });
  return result;
}

// Integers are whole numbers already.
template <typename T, typename Body> T rounded(T x, Body body) {
  if constexpr (std::is_integral<T>::value) return x;
  else return body(x);
}

inline Tensor like(const Tensor& self) { return empty(self.sizes(), self.dtype()); }
inline Tensor like(const Tensor& self, const Scalar& value) { return full(self.sizes(), value, self.dtype()); }

}  // namespace detail

#define NKILITE_UNARY(name, whole, expression)                                                  \
  inline Tensor& name##_out(Tensor& result, const Tensor& self) {                               \
    return detail::unary<whole>(result, self, [](auto x) { return expression; });               \
  }                                                                                             \
  inline Tensor name(const Tensor& self) {                                                      \
    Tensor result = detail::like(self);                                                         \
    return name##_out(result, self);                                                            \
  }

NKILITE_UNARY(abs, false, x < 0 ? -x : x)
NKILITE_UNARY(ceil, false, detail::rounded(x, [](float y) { return std::ceil(y); }))
NKILITE_UNARY(floor, false, detail::rounded(x, [](float y) { return std::floor(y); }))
NKILITE_UNARY(sin, false, std::sin(float(x)))
NKILITE_UNARY(cos, false, std::cos(float(x)))
NKILITE_UNARY(tan, false, std::tan(float(x)))
NKILITE_UNARY(log, false, std::log(float(x)))
NKILITE_UNARY(log2, false, std::log2(float(x)))
NKILITE_UNARY(log10, false, std::log10(float(x)))
NKILITE_UNARY(exp, false, std::exp(float(x)))
NKILITE_UNARY(bitwise_not, true, ~x)
#undef NKILITE_UNARY

// The tensor of a number that stands for one, with the shape and dtype of the other operand.
#define NKILITE_BINARY(name, whole, expression)                                                            \
  inline Tensor& name##_out(Tensor& result, const Tensor& self, const Tensor& other) {                     \
    return detail::binary<whole>(result, self, other, [](auto x, auto y) { return expression; });          \
  }                                                                                                        \
  inline Tensor& name##_out(Tensor& result, const Tensor& self, const Scalar& other) {                     \
    return name##_out(result, self, detail::like(self, other));                                            \
  }                                                                                                        \
  inline Tensor& name##_out(Tensor& result, const Scalar& self, const Tensor& other) {                     \
    return name##_out(result, detail::like(other, self), other);                                           \
  }                                                                                                        \
  template <typename A, typename B> Tensor name(const A& self, const B& other) {                           \
    Tensor result = detail::like(detail::shaped(self, other));                                             \
    return name##_out(result, self, other);                                                                \
  }

namespace detail {
inline const Tensor& shaped(const Tensor& a, const Tensor&) { return a; }
template <typename B> const Tensor& shaped(const Tensor& a, const B&) { return a; }
template <typename A> const Tensor& shaped(const A&, const Tensor& b) { return b; }
template <typename T> T power(T x, T y) { return T(std::pow(x, y)); }
template <typename T> T quotient(T x, T y) {
  if constexpr (std::is_integral<T>::value)
    if (y == 0) nkilite::fail("a division by zero");
  return x / y;
}
}  // namespace detail

NKILITE_BINARY(pow, false, detail::power(x, y))
NKILITE_BINARY(mul, false, x* y)
NKILITE_BINARY(div, false, detail::quotient(x, y))
NKILITE_BINARY(bitwise_and, true, x& y)
NKILITE_BINARY(bitwise_or, true, x | y)
#undef NKILITE_BINARY

#define NKILITE_SCALED(name, sign)                                                                                 \
  inline Tensor& name##_out(Tensor& result, const Tensor& self, const Tensor& other, const Scalar& alpha = 1) {    \
    const double factor = alpha.toDouble();                                                                        \
    return detail::binary<false>(result, self, other, [factor](auto x, auto y) {                                   \
      return x sign decltype(x)(factor) * y;                                                                       \
    });                                                                                                            \
  }                                                                                                                \
  inline Tensor& name##_out(Tensor& result, const Tensor& self, const Scalar& other, const Scalar& alpha = 1) {    \
    return name##_out(result, self, detail::like(self, other), alpha);                                             \
  }                                                                                                                \
  template <typename B> Tensor name(const Tensor& self, const B& other, const Scalar& alpha = 1) {                 \
    Tensor result = detail::like(self);                                                                            \
    return name##_out(result, self, other, alpha);                                                                 \
  }

NKILITE_SCALED(add, +)
NKILITE_SCALED(sub, -)
#undef NKILITE_SCALED

inline Tensor& clamp_out(Tensor& result, const Tensor& self, const Scalar& least, const Scalar& most) {
  return detail::unary<false>(result, self, [&](auto x) {
    using W = decltype(x);
    return x < W(least.toDouble()) ? W(least.toDouble()) : x > W(most.toDouble()) ? W(most.toDouble()) : x;
  });
}
inline Tensor clamp(const Tensor& self, const Scalar& least, const Scalar& most) {
  Tensor result = detail::like(self);
  return clamp_out(result, self, least, most);
}

}  // namespace torch

namespace at {
using torch::Scalar;
using torch::Tensor;
}  // namespace at

namespace nkilite {
namespace detail {

template <> struct Wrapped<torch::Tensor> : std::true_type {
  static torch::Tensor from(const nkilite_argument& given) { return torch::Tensor(tensor_of(given)); }
  static constexpr char read = 'R', written = 'W';
};
template <> struct Given<c10::Scalar> {
  static constexpr char letter = 'd';
  static c10::Scalar from(const nkilite_argument& given) { return c10::Scalar(given.number); }
};

}  // namespace detail
}  // namespace nkilite

// The result of the operator that runs, to write to it in place of returning it.
inline torch::Tensor get_dst_tensor() {
  if (!nkilite::detail::destination.there) nkilite::fail("get_dst_tensor: this operator returns no tensor");
  nkilite::detail::destination.taken = true;
  return torch::Tensor(nkilite::detail::destination.tensor);
}
