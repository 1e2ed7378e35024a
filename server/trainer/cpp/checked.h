// How every function of the shims fails: it returns null, or a message that lasts until it fails
// again on the same thread.
#include <exception>
#include <string>

template <typename F>
const char* checked(F&& body) {
  static thread_local std::string error;
  try {
    body();
    return nullptr;
  } catch (const std::exception& e) {
    error = e.what();
    return error.c_str();
  }
}
