// NEURON_LIBRARY(name, m) { m.def("operator", &shape_function, "kernel_function"); }: the operators of a library, with
// the functions that say what shape and dtype their results have.
#pragma once

#include "torch/torch.h"

namespace nkilite {
namespace detail {

struct Registered {
  std::string name, kernel, signature;
  std::function<torch::Tensor(const nkilite_argument*)> shape;
};
struct Registry {
  std::string name;
  std::vector<Registered> operators;
};
inline Registry& registry() {
  static Registry found;
  return found;
}

}  // namespace detail

class Library {
 public:
  template <typename... Parameters>
  void def(const char* name, torch::Tensor (*shape)(Parameters...), const char* kernel) {
    using Function = torch::Tensor (*)(Parameters...);
    auto run = [shape](const nkilite_argument* given) {
      return detail::Operator<Function>::call(shape, given, std::index_sequence_for<Parameters...>());
    };
    detail::registry().operators.push_back({name, kernel, detail::Operator<Function>::signature, run});
  }
};

}  // namespace nkilite

extern "C" {
[[gnu::visibility("default")]] const char* nkilite_library() { return nkilite::detail::registry().name.c_str(); }
[[gnu::visibility("default")]] int64_t nkilite_cores() { return NKILITE_CORES; }
[[gnu::visibility("default")]] int64_t nkilite_operators() {
  return int64_t(nkilite::detail::registry().operators.size());
}
[[gnu::visibility("default")]] const char* nkilite_operator_name(int64_t i) {
  return nkilite::detail::registry().operators[size_t(i)].name.c_str();
}
[[gnu::visibility("default")]] const char* nkilite_operator_kernel(int64_t i) {
  return nkilite::detail::registry().operators[size_t(i)].kernel.c_str();
}
[[gnu::visibility("default")]] const char* nkilite_operator_letters(int64_t i) {
  return nkilite::detail::registry().operators[size_t(i)].signature.c_str();
}
// The shape and dtype of a result.
[[gnu::visibility("default")]] int32_t nkilite_operator_shape(
    int64_t i, const nkilite_argument* given, nkilite_argument* result) {
  try {
    const torch::Tensor found = nkilite::detail::registry().operators[size_t(i)].shape(given);
    result->dtype = int64_t(found.dtype());
    result->ndim = found.dim();
    std::memcpy(result->sizes, found.state().layout.sizes, sizeof result->sizes);
    return 0;
  } catch (const std::exception& error) {
    return nkilite::detail::failed(error.what());
  }
}
}

#define NEURON_LIBRARY(library, m)                                                        \
  static void nkilite_define_##library(nkilite::Library&);                                \
  static const bool nkilite_defined_##library = [] {                                      \
    nkilite::detail::registry().name = #library;                                          \
    nkilite::Library m;                                                                   \
    nkilite_define_##library(m);                                                          \
    return true;                                                                          \
  }();                                                                                    \
  static void nkilite_define_##library(nkilite::Library& m)
