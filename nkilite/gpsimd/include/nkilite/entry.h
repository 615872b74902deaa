// The C interface of operators, made from the types of their functions.
#pragma once

#include <cstdio>
#include <tuple>

#include "nkilite/gpsimd.h"

extern "C" {

// An argument: a tensor, or a number where ndim is -1.
struct nkilite_argument {
  void* data;
  int64_t dtype, ndim, sizes[nkilite::detail::MOST_DIMENSIONS], strides[nkilite::detail::MOST_DIMENSIONS];
  double number;
};
}

namespace nkilite {
namespace detail {

// The destination of an operator that returns its result, while it runs; `taken` if it asked for it.
struct Destination {
  Tensor tensor;
  bool taken = false, there = false;
};
inline thread_local Destination destination;

inline char message[1024];

inline int32_t failed(const char* what) {
  std::snprintf(message, sizeof message, "%s", what);
  return 1;
}

template <typename T> struct Given {  // a number
  static constexpr char letter = std::is_floating_point<T>::value ? 'd' : std::is_same<T, bool>::value ? 'b' : 'i';
  static_assert(std::is_arithmetic<T>::value, "an operator takes tensors, double, int64_t and bool");
  static T from(const nkilite_argument& given) {
    if constexpr (std::is_integral<T>::value && !std::is_same<T, bool>::value) {
      using Limits = std::numeric_limits<T>;
      if (!(given.number >= double(Limits::min()) && given.number <= double(Limits::max())))
        fail("the number " + std::to_string(given.number) + " does not fit its parameter");
    }
    return static_cast<T>(given.number);
  }
};

inline Tensor tensor_of(const nkilite_argument& given) {
  auto state = std::make_shared<Tensor::State>();
  state->data = given.data;
  state->dtype = static_cast<DType>(given.dtype);
  state->layout.ndim = given.ndim;
  std::memcpy(state->layout.sizes, given.sizes, sizeof given.sizes);
  std::memcpy(state->layout.strides, given.strides, sizeof given.strides);
  return Tensor(std::move(state));
}

// A class made from what an argument holds says so here, as torch::Tensor does.
template <typename T> struct Wrapped : std::false_type {};
template <> struct Wrapped<Tensor> : std::true_type {
  static Tensor from(const nkilite_argument& given) { return tensor_of(given); }
  static constexpr char read = 'R', written = 'W';
};

template <typename T> struct Parameter {
  using Plain = std::remove_cv_t<std::remove_reference_t<T>>;
  static constexpr bool reads = std::is_const<std::remove_reference_t<T>>::value;
  static constexpr char letter() {
    if constexpr (Wrapped<Plain>::value) return reads ? Wrapped<Plain>::read : Wrapped<Plain>::written;
    else return Given<Plain>::letter;
  }
  static auto from(const nkilite_argument& given) {
    if constexpr (Wrapped<Plain>::value) return Wrapped<Plain>::from(given);
    else return Given<Plain>::from(given);
  }
};

template <typename Function> struct Operator;

template <typename Result, typename... Parameters> struct Operator<Result (*)(Parameters...)> {
  static constexpr bool returns = !std::is_void<Result>::value;
  // "T" if it returns a tensor, "v" if not; then a letter for each parameter.
  static constexpr char signature[] = {returns ? 'T' : 'v', Parameter<Parameters>::letter()..., 0};

  template <size_t... I>
  static auto call(Result (*function)(Parameters...), const nkilite_argument* given, std::index_sequence<I...>) {
    std::tuple<std::decay_t<decltype(Parameter<Parameters>::from(given[I]))>...> values{Parameter<Parameters>::from(given[I])...};
    return function(static_cast<Parameters>(std::get<I>(values))...);
  }

  // Runs on every core in turn. An operator that returns a tensor has its destination as argument 0.
  static int32_t run(Result (*function)(Parameters...), const nkilite_argument* given, int64_t cores) {
    int32_t status = 0;
    try {
      for (core_() = {0, cores}; core_().id < cores; core_().id++) {
        one(function, given);
        end();
      }
    } catch (const std::exception& error) {
      status = failed(error.what());
    } catch (...) {
      status = failed("something was thrown that is no std::exception");
    }
    core_() = {};
    destination = {};
    end();
    return status;
  }

 private:
  static void end() {
    if (release) release();
  }
  static Core& core_() { return detail::core; }
  static void one(Result (*function)(Parameters...), const nkilite_argument* given) {
    constexpr auto all = std::index_sequence_for<Parameters...>();
    if constexpr (returns) {
      static_assert(Wrapped<std::decay_t<Result>>::value, "an operator returns a tensor or nothing");
      destination = {tensor_of(given[0]), false, true};
      const Tensor result = call(function, given + 1, all);
      const bool taken = destination.taken;
      const Tensor target = destination.tensor;
      destination = {};
      if (!taken) target.assign(result);
    } else {
      call(function, given, all);
    }
  }
};

}  // namespace detail
}  // namespace nkilite

extern "C" {
[[gnu::used, gnu::visibility("default")]] inline const char* nkilite_message() { return nkilite::detail::message; }
}

#ifndef NKILITE_CORES
#define NKILITE_CORES 1
#endif

// An operator of a function, under a name of its own.
#define NKILITE_ENTRY(name, function)                                                                        \
  extern "C" [[gnu::visibility("default")]] int32_t name(const nkilite_argument* given, int64_t cores) {     \
    return nkilite::detail::Operator<decltype(&function)>::run(&function, given, cores);                     \
  }                                                                                                          \
  extern "C" [[gnu::visibility("default")]] const char* name##_signature() {                                 \
    return nkilite::detail::Operator<decltype(&function)>::signature;                                        \
  }
