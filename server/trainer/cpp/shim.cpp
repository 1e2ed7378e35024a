// What tch does not bind, for any device. Links libc10 and libtorch_cpu only.
//
// Every function returns 0, or -1 and a message in pba_error().
#include <ATen/Context.h>
#include <ATen/record_function.h>
#include <c10/core/AutogradState.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <atomic>
#include <string>

namespace {

thread_local std::string error;
std::atomic<int64_t> ops{0};
at::CallbackHandle ops_callback;

template <typename F>
int checked(F&& body) {
  try {
    body();
    return 0;
  } catch (const std::exception& e) {
    error = e.what();
    return -1;
  }
}

c10::Device cuda(int device) {
  return c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device));
}

c10::Stream stream(int device, int64_t id) {
  return c10::Stream(c10::Stream::UNSAFE, cuda(device), id);
}

}  // namespace

extern "C" {

const char* pba_error() { return error.c_str(); }

// Runs backward passes of this thread on this thread, not on one engine thread per device.
int pba_backward_on_caller() {
  return checked([] { c10::AutogradState::get_tls_state().set_multithreading_enabled(false); });
}

// Deterministic kernels: no atomics in reductions, cuDNN chooses by rule and not by measuring.
int pba_deterministic(int on) {
  return checked([on] {
    auto& context = at::globalContext();
    context.setDeterministicCuDNN(on != 0);
    context.setBenchmarkCuDNN(on == 0);
  });
}

// Counts the operators that are called, to say what a step costs.
int pba_ops_start() {
  return checked([] {
    ops = 0;
    ops_callback = at::addGlobalCallback(
        at::RecordFunctionCallback([](const at::RecordFunction&) -> std::unique_ptr<at::ObserverContext> {
          ++ops;
          return nullptr;
        }).scopes({at::RecordScope::FUNCTION}));
  });
}

int64_t pba_ops_stop() {
  at::removeCallback(ops_callback);
  return ops;
}

int pba_stream_new(int device, int64_t* id) {
  return checked([&] {
    c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
    *id = guard.getStreamFromGlobalPool(cuda(device), false).id();
  });
}

// Makes a stream the current one of this thread; gives the one before.
int pba_stream_swap(int device, int64_t id, int64_t* before) {
  return checked([&] {
    c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
    *before = guard.exchangeStream(stream(device, id)).id();
  });
}

// Lets stream `waits` go on only after what stream `first` has been given so far.
int pba_stream_wait(int device, int64_t first, int64_t waits) {
  return checked([&] {
    c10::Event event(c10::DeviceType::CUDA);
    event.record(stream(device, first));
    event.block(stream(device, waits));
  });
}

}  // extern "C"
