// CUDA graphs and device facts. A shared object of its own, loaded after libtorch_cuda.so.
//
// Every function returns 0, or -1 and a message in pba_cuda_error().
#include <ATen/cuda/CUDAGraph.h>
#include <cuda_runtime_api.h>

#include <cstring>
#include <string>

namespace {

thread_local std::string error;

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

at::cuda::CUDAGraph* graph(void* pointer) { return static_cast<at::cuda::CUDAGraph*>(pointer); }

}  // namespace

extern "C" {

const char* pba_cuda_error() { return error.c_str(); }

int pba_graph_new(void** out) {
  return checked([&] { *out = new at::cuda::CUDAGraph(); });
}

void pba_graph_free(void* pointer) {
  checked([&] { delete graph(pointer); });
}

// Records what the current stream of this thread is given from here on, instead of running it.
int pba_graph_begin(void* pointer) {
  return checked([&] { graph(pointer)->capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal); });
}

int pba_graph_end(void* pointer) {
  return checked([&] { graph(pointer)->capture_end(); });
}

// Runs it on the current stream of this thread.
int pba_graph_replay(void* pointer) {
  return checked([&] { graph(pointer)->replay(); });
}

int pba_cuda_device(int device, char* name, int name_bytes, uint64_t* free_bytes, uint64_t* total_bytes) {
  cudaDeviceProp properties;
  size_t free = 0, total = 0;
  if (cudaGetDeviceProperties(&properties, device) != cudaSuccess || cudaSetDevice(device) != cudaSuccess ||
      cudaMemGetInfo(&free, &total) != cudaSuccess) {
    error = cudaGetErrorString(cudaGetLastError());
    return -1;
  }
  std::strncpy(name, properties.name, name_bytes - 1);
  name[name_bytes - 1] = 0;
  *free_bytes = free;
  *total_bytes = total;
  return 0;
}

}  // extern "C"
