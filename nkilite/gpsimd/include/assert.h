// assert() as an error that names the line, for the process around the operator is somebody else's. No include guard:
// as in C, the last inclusion decides.
#ifdef __cplusplus
#include <stdexcept>
#include <string>
#ifndef NKILITE_ASSERT_H
#define NKILITE_ASSERT_H
namespace nkilite {
[[noreturn]] inline void assertion_failed(const char* condition, const char* file, int line) {
  throw std::runtime_error("assertion `" + std::string(condition) + "` failed at " + file + ":" + std::to_string(line));
}
}  // namespace nkilite
#endif
#undef assert
#ifdef NDEBUG
#define assert(condition) (static_cast<void>(0))
#else
#define assert(condition) \
  ((condition) ? static_cast<void>(0) : ::nkilite::assertion_failed(#condition, __FILE__, __LINE__))
#endif
#endif
