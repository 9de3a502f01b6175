// An "mps" device on host memory, for machines without Apple hardware.
//
// Tensors really are on mps:0: autograd, autocast, FakeTensor and torch.compile treat them as on a Mac. Only the bottom
// is replaced: memory comes from malloc, and each ATen operator that has a CPU kernel gets an MPS kernel that runs the
// CPU kernel over the same bytes. Operators of other namespaces get none, so an operator that forgot its MPS kernel
// fails here as it fails there.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/MPSHooksInterface.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/library.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <unordered_map>

namespace {

using at::Tensor;
using c10::DispatchKey;
using c10::DispatchKeySet;
using c10::IValue;

const c10::Device kMps(c10::DeviceType::MPS, 0);

// ---------------------------------------------------------------------------------------------------------- memory

std::atomic<size_t> bytes_in_use{0};
std::atomic<size_t> host_reads{0};

// every block is [guard | payload | guard]; the payload starts as NaN, whatever the float type
constexpr size_t kGuard = 64;
constexpr unsigned char kGuardByte = 0xA5;
constexpr unsigned char kPoison = 0xFF;

struct Blocks {
  std::mutex mutex;
  std::unordered_map<unsigned char*, size_t> live;  // payload -> bytes
  size_t broken = 0;                                // blocks freed with a broken guard

  static bool intact(const unsigned char* payload, size_t bytes) {
    for (size_t i = 0; i < kGuard; ++i)
      if (payload[-1 - static_cast<ptrdiff_t>(i)] != kGuardByte || payload[bytes + i] != kGuardByte) return false;
    return true;
  }
};

Blocks& blocks() {
  static auto* all = new Blocks();  // tensors may outlive static destruction
  return *all;
}

void free_block(void* pointer) {
  if (!pointer) return;
  auto* payload = static_cast<unsigned char*>(pointer);
  size_t bytes;
  {
    std::lock_guard<std::mutex> lock(blocks().mutex);
    auto found = blocks().live.find(payload);
    bytes = found->second;
    if (!Blocks::intact(payload, bytes)) ++blocks().broken;
    blocks().live.erase(found);
  }
  bytes_in_use -= bytes;
  std::free(payload - kGuard);
}

struct Allocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, kMps};
    void* base = nullptr;
    TORCH_CHECK(posix_memalign(&base, 64, bytes + 2 * kGuard) == 0, "MPS backend out of memory (simulated), ", bytes, " bytes");
    auto* payload = static_cast<unsigned char*>(base) + kGuard;
    std::memset(base, kGuardByte, kGuard);
    std::memset(payload, kPoison, bytes);
    std::memset(payload + bytes, kGuardByte, kGuard);
    {
      std::lock_guard<std::mutex> lock(blocks().mutex);
      blocks().live[payload] = bytes;
    }
    bytes_in_use += bytes;
    return {payload, payload, &free_block, kMps};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_block; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};

Allocator allocator;

struct Adopted {
  c10::Storage storage;
  size_t bytes;
};

// memory that a CPU kernel allocated becomes device memory without a copy
c10::DataPtr adopt(c10::Storage storage) {
  size_t bytes = storage.nbytes();
  void* data = storage.mutable_data();
  if (!data) return {nullptr, kMps};
  bytes_in_use += bytes;
  auto release = [](void* context) {
    auto* adopted = static_cast<Adopted*>(context);
    bytes_in_use -= adopted->bytes;
    delete adopted;
  };
  return {data, new Adopted{std::move(storage), bytes}, release, kMps};
}

c10::Storage new_storage(size_t bytes, c10::DataPtr data) {
  return c10::Storage(c10::Storage::use_byte_size_t(), bytes, std::move(data), &allocator, /*resizable=*/true);
}

// ---------------------------------------------------------------------------------------------------------- limits

void check_dtype(c10::ScalarType dtype) {
  TORCH_CHECK_TYPE(
      dtype != c10::ScalarType::Double && dtype != c10::ScalarType::ComplexDouble,
      "Cannot convert a MPS Tensor to ",
      dtype == c10::ScalarType::Double ? "float64" : "complex128",
      " dtype as the MPS framework doesn't support float64. Please use float32 instead.");
}

void check_rank(int64_t rank) {
  TORCH_CHECK(rank <= 16, "MPS supports tensors with dimensions <= 16, but got ", rank, ".");
}

// ------------------------------------------------------------------------------------------------------- generator

struct MpsGenerator final : c10::GeneratorImpl {
  at::Generator host;  // draws the numbers; the CPU's own default generator is left alone

  explicit MpsGenerator(at::Generator source)
      : c10::GeneratorImpl(kMps, DispatchKeySet(DispatchKey::MPS)), host(std::move(source)) {}

  void set_current_seed(uint64_t seed) override { host.set_current_seed(seed); }
  void set_offset(uint64_t offset) override { host.set_offset(offset); }
  uint64_t get_offset() const override { return host.get_offset(); }
  uint64_t current_seed() const override { return host.current_seed(); }
  uint64_t seed() override { return host.seed(); }
  void set_state(const c10::TensorImpl& state) override { host.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return host.unsafeGetGeneratorImpl()->get_state(); }
  MpsGenerator* clone_impl() const override { return new MpsGenerator(host.clone()); }
};

at::Generator new_generator() { return at::make_generator<MpsGenerator>(at::detail::createCPUGenerator()); }

const at::Generator& default_generator() {
  static auto* generator = new at::Generator(new_generator());
  return *generator;
}

const at::Generator& host_generator(const at::Generator& generator) {
  TORCH_CHECK(
      generator.device().is_mps(), "Expected a 'mps' device type for generator but found '", generator.device().type(), "'");
  return static_cast<MpsGenerator*>(generator.unsafeGetGeneratorImpl())->host;
}

// ----------------------------------------------------------------------------------------------- hooks and streams

struct Events {
  using Clock = std::chrono::steady_clock;
  std::mutex mutex;
  std::unordered_map<uint32_t, Clock::time_point> recorded;
  uint32_t last = 0;
};

Events& events() {
  static auto* all = new Events();
  return *all;
}

// No data members: see attach(). Functions that came or went between torch versions are not marked override.
struct Hooks final : at::MPSHooksInterface {
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasMPS() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  bool isOnMacOSorNewer(unsigned, unsigned) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::Device getDeviceFromPtr(void*) const override { return kMps; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override { return default_generator(); }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return new_generator(); }
  c10::Allocator* getMPSDeviceAllocator() const override { return &allocator; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return c10::GetAllocator(c10::DeviceType::CPU); }
  void deviceSynchronize() const override {}
  void commitStream() const override {}
  void emptyCache() const override {}
  void setMemoryFraction(double) const override {}
  size_t getCurrentAllocatedMemory() const override { return bytes_in_use; }
  size_t getDriverAllocatedMemory() const override { return bytes_in_use; }
  size_t getRecommendedMaxMemory() const override { return size_t{16} << 30; }
  size_t getMaxBufferLength() const { return size_t{8} << 30; }

  uint32_t acquireEvent(bool) const override {
    std::lock_guard<std::mutex> lock(events().mutex);
    return ++events().last;
  }
  void releaseEvent(uint32_t id) const override {
    std::lock_guard<std::mutex> lock(events().mutex);
    events().recorded.erase(id);
  }
  void recordEvent(uint32_t id) const override {
    std::lock_guard<std::mutex> lock(events().mutex);
    events().recorded[id] = Events::Clock::now();
  }
  void waitForEvent(uint32_t) const override {}
  void synchronizeEvent(uint32_t) const override {}
  bool queryEvent(uint32_t) const override { return true; }
  double elapsedTimeOfEvents(uint32_t start, uint32_t end) const override {
    std::lock_guard<std::mutex> lock(events().mutex);
    auto& recorded = events().recorded;
    TORCH_CHECK(recorded.count(start) && recorded.count(end), "Both events must be recorded before measuring time.");
    return std::chrono::duration<double, std::milli>(recorded[end] - recorded[start]).count();
  }
};

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, kMps); }
  c10::DeviceType type() const override { return c10::DeviceType::MPS; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  c10::Device exchangeDevice(c10::Device) const override { return kMps; }
  c10::Device getDevice() const override { return kMps; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return stream(); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(); }
  c10::Stream getNewStream(c10::Device, int) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const override { return stream(); }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
};

// -------------------------------------------------------------------------------------------------- boxed fallback

// One operator call: its mps tensors seen as CPU tensors over the same bytes, and its results seen as mps tensors.
class Call {
 public:
  explicit Call(const c10::OperatorHandle& op) : name_(op.schema().name()) {}

  IValue to_host(const IValue& value, const c10::Argument& argument) {
    if (value.isTensor()) return to_host(value.toTensor());
    if (value.isTensorList() || value.isOptionalTensorList()) return map_list(value, [&](const Tensor& t) { return to_host(t); });
    if (value.isDevice() && value.toDevice().is_mps()) return c10::Device(c10::DeviceType::CPU);
    if (value.isGenerator()) return host_generator(value.toGenerator());
    if (value.isNone() && argument.name() == "generator") return host_generator(default_generator());
    return value;
  }

  IValue to_device(const IValue& value) {
    if (value.isTensor()) return to_device(value.toTensor());
    if (value.isTensorList() || value.isOptionalTensorList()) return map_list(value, [&](const Tensor& t) { return to_device(t); });
    host_reads += value.isScalar();
    return value;
  }

  void check_devices() const {
    if (!seen_mps_ || !refused_.defined()) return;
    TORCH_CHECK(
        false, "Expected all tensors to be on the same device, but found at least two devices, mps:0 and ", refused_.device(),
        "! (when calling ", name_, ")");
  }

  // a kernel may have resized, reallocated or re-viewed an argument it writes
  void write_back() {
    for (auto& pair : storages_) {
      auto* host = pair.host.unsafeGetStorageImpl();
      if (host->data() == pair.data && host->nbytes() == pair.bytes) continue;
      size_t bytes = host->nbytes();
      c10::Storage grown(c10::Storage::use_byte_size_t(), bytes, host->set_data_ptr(c10::DataPtr()));
      auto* device = pair.device.unsafeGetStorageImpl();
      device->set_data_ptr_noswap(adopt(std::move(grown)));
      device->set_nbytes(bytes);
    }
    for (auto& argument : arguments_) {
      const auto& host = argument.host;
      auto* original = argument.original.unsafeGetTensorImpl();
      if (host.sizes() != original->sizes() || host.strides() != original->strides() ||
          host.storage_offset() != original->storage_offset())
        original->set_sizes_and_strides(host.sizes(), host.strides(), host.storage_offset());
    }
  }

 private:
  struct Argument {
    Tensor original, host;
  };
  struct SharedStorage {
    c10::Storage device, host;
    const void* data;  // of host, before the kernel
    size_t bytes;
  };

  template <class F>
  static IValue map_list(const IValue& value, F&& convert) {
    auto source = value.toList();
    c10::impl::GenericList result(source.elementType());
    result.reserve(source.size());
    for (const IValue& element : value.toListRef())
      result.push_back(element.isTensor() ? IValue(convert(element.toTensor())) : element);
    return result;
  }

  static Tensor same_view(const Tensor& like, c10::Storage storage, DispatchKey key) {
    DispatchKeySet keys(key);
    if (like._is_zerotensor()) keys = keys.add(DispatchKey::ZeroTensor);
    auto tensor = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), keys, like.dtype());
    auto* impl = tensor.unsafeGetTensorImpl();
    impl->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
    if (like.is_conj()) impl->_set_conj(true);
    if (like.is_neg()) impl->_set_neg(true);
    if (like.unsafeGetTensorImpl()->is_wrapped_number()) impl->set_wrapped_number(true);
    return tensor;
  }

  // Devices mix in copies, by 0-dim CPU tensors, and by CPU indices into an mps tensor: nowhere else.
  bool may_stay_on_cpu(const Tensor& tensor) const {
    if (tensor.dim() == 0 || name_ == "aten::copy_") return true;
    bool indexing = name_ == "aten::index" || name_ == "aten::_unsafe_index" || name_.find("index_put") != std::string::npos;
    return indexing && c10::isIntegralType(tensor.scalar_type(), /*includeBool=*/true);
  }

  Tensor to_host(const Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    if (!tensor.is_mps()) {
      if (!tensor.is_cpu() || !may_stay_on_cpu(tensor)) refused_ = tensor;
      passed_.push_back(tensor);
      return tensor;
    }
    seen_mps_ = true;
    for (auto& argument : arguments_)
      if (argument.original.is_same(tensor)) return argument.host;
    check_rank(tensor.dim());
    auto host = same_view(tensor, host_storage(tensor.storage()), DispatchKey::CPU);
    arguments_.push_back({tensor, host});
    return host;
  }

  // tensors that share memory keep sharing it: overlap checks and aliasing results depend on that
  c10::Storage host_storage(const c10::Storage& device) {
    for (auto& pair : storages_)
      if (pair.device.is_alias_of(device)) return pair.host;
    size_t bytes = device.nbytes();
    c10::DataPtr data(device.mutable_data(), c10::Device(c10::DeviceType::CPU));
    auto* cpu = c10::GetAllocator(c10::DeviceType::CPU);
    c10::Storage host(c10::Storage::use_byte_size_t(), bytes, std::move(data), cpu, /*resizable=*/true);
    storages_.push_back({device, host, host.data(), bytes});
    return host;
  }

  c10::Storage device_storage(const c10::Storage& host) {
    for (auto& pair : storages_)
      if (pair.host.is_alias_of(host)) return pair.device;
    auto device = new_storage(host.nbytes(), adopt(host));
    storages_.push_back({device, host, host.data(), host.nbytes()});
    return device;
  }

  Tensor to_device(const Tensor& tensor) {
    if (!tensor.defined() || tensor.is_mps()) return tensor;
    for (auto& argument : arguments_)
      if (argument.host.is_same(tensor)) return argument.original;
    for (auto& passed : passed_)
      if (passed.is_same(tensor)) {
        ++host_reads;
        return tensor;
      }
    TORCH_CHECK_NOT_IMPLEMENTED(tensor.layout() == c10::kStrided, "only strided tensors are supported on MPS");
    check_dtype(tensor.scalar_type());
    check_rank(tensor.dim());
    return same_view(tensor, device_storage(tensor.storage()), DispatchKey::MPS);
  }

  const std::string& name_;
  c10::SmallVector<Argument, 6> arguments_;
  c10::SmallVector<Tensor, 2> passed_;
  c10::SmallVector<SharedStorage, 6> storages_;
  Tensor refused_;
  bool seen_mps_ = false;
};

template <class F>
void run_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack, F&& kernel) {
  const auto& arguments = op.schema().arguments();
  size_t first = stack->size() - arguments.size();
  Call call(op);
  for (size_t i = 0; i < arguments.size(); ++i) (*stack)[first + i] = call.to_host((*stack)[first + i], arguments[i]);
  call.check_devices();
  {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    c10::impl::ExcludeDispatchKeyGuard below_autocast(c10::autocast_dispatch_keyset);
    kernel();
  }
  call.write_back();
  for (size_t i = stack->size() - op.schema().returns().size(); i < stack->size(); ++i)
    (*stack)[i] = call.to_device((*stack)[i]);
}

void run_cpu_kernel(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  run_on_host(op, stack, [&] { op.redispatchBoxed(DispatchKeySet(DispatchKey::CPU), stack); });
}

// for composite operators that look at the device themselves, and find no MPS code in this build of torch
void run_composite(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  run_on_host(op, stack, [&] { op.callBoxed(stack); });
}

// ------------------------------------------------------------------------------------------------- explicit kernels

Tensor empty(
    c10::SymIntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout> layout,
    std::optional<c10::Device>, std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  auto type = dtype.value_or(c10::get_default_dtype_as_scalartype());
  TORCH_CHECK_NOT_IMPLEMENTED(layout.value_or(c10::kStrided) == c10::kStrided, "only strided tensors are supported on MPS");
  check_rank(static_cast<int64_t>(size.size()));
  check_dtype(type);
  return at::detail::empty_generic(
      C10_AS_INTARRAYREF_SLOW(size), &allocator, DispatchKeySet(DispatchKey::MPS), type, format);
}

Tensor empty_strided(
    c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
    std::optional<c10::Device>, std::optional<bool>) {
  auto type = dtype.value_or(c10::get_default_dtype_as_scalartype());
  check_dtype(type);
  return at::detail::empty_strided_generic(
      C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &allocator, DispatchKeySet(DispatchKey::MPS), type);
}

Tensor as_strided(
    const Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<c10::SymInt> offset) {
  std::optional<int64_t> start;
  if (offset) start = offset->guard_int(__FILE__, __LINE__);
  return at::native::as_strided_tensorimpl(self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), start);
}

Tensor view(const Tensor& self, c10::SymIntArrayRef size) { return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size)); }

const Tensor& resize_(const Tensor& self, c10::SymIntArrayRef size, std::optional<c10::MemoryFormat> format) {
  return at::native::resize_(self, C10_AS_INTARRAYREF_SLOW(size), format);
}

Tensor& set_nothing(Tensor& self) {
  return at::native::set_storage_cpu_(self, new_storage(0, {nullptr, kMps}), 0, {0}, {});
}

Tensor& set_tensor(Tensor& self, const Tensor& source) { return at::native::set_tensor_(self, source); }

Tensor& set_storage(Tensor& self, c10::Storage source) { return at::native::set_(self, std::move(source)); }

Tensor& set_storage_view(
    Tensor& self, c10::Storage source, c10::SymInt offset, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  return at::native::set_storage_cpu_(
      self, std::move(source), offset.guard_int(__FILE__, __LINE__), C10_AS_INTARRAYREF_SLOW(size),
      C10_AS_INTARRAYREF_SLOW(stride));
}

void register_kernels() {
  static torch::Library library(torch::Library::IMPL, "aten", DispatchKey::MPS, __FILE__, __LINE__);
  library.impl("empty.memory_format", TORCH_FN(empty));
  library.impl("empty_strided", TORCH_FN(empty_strided));
  library.impl("as_strided", TORCH_FN(as_strided));
  library.impl("view", TORCH_FN(view));
  library.impl("resize_", TORCH_FN(resize_));
  library.impl("set_", TORCH_FN(set_nothing));
  library.impl("set_.source_Tensor", TORCH_FN(set_tensor));
  library.impl("set_.source_Storage", TORCH_FN(set_storage));
  library.impl("set_.source_Storage_storage_offset", TORCH_FN(set_storage_view));
  for (const char* name :
       {"copy_", "convolution", "convolution_backward", "kaiser_window", "kaiser_window.periodic", "kaiser_window.beta"})
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&run_composite>());

  // A kernel for each operator, and not a backend fallback: composite kernels would win over a fallback, and a fallback
  // would also answer for operators of other namespaces.
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& name : dispatcher.getRegistrationsForDispatchKey(DispatchKey::CPU)) {
    if (name.name.rfind("aten::", 0) != 0) continue;
    auto op = dispatcher.findOp(name);
    if (!op || !op->hasSchema() || op->hasKernelForDispatchKey(DispatchKey::MPS)) continue;
    std::string full = name.overload_name.empty() ? name.name : name.name + "." + name.overload_name;
    library.impl(full.c_str(), torch::CppFunction::makeFromBoxedFunction<&run_cpu_kernel>());
  }
}

// Backward passes over mps tensors run on a device thread, and the engine starts its device threads once, at the first
// backward. Where that has been, with no device to start one for, they are started now.
struct Engine : torch::autograd::Engine {
  static void start_threads_if_late() {
    auto& engine = static_cast<Engine&>(get_default_engine());
    if (engine.thread_pool_shared_ && engine.device_ready_queues_.empty()) engine.start_device_threads();
  }
};

// torch asks the registry for its hooks once, at the first question about MPS, and keeps the object for ever. That may
// have happened already, so the kept object (which has no data) becomes ours by changing its class.
void replace_hooks() {
  static_assert(sizeof(Hooks) == sizeof(void*) && sizeof(at::MPSHooksInterface) == sizeof(void*));
  static const Hooks ours;
  auto* kept = const_cast<at::MPSHooksInterface*>(&at::detail::getMPSHooks());
  std::memcpy(static_cast<void*>(kept), static_cast<const void*>(&ours), sizeof(void*));
}

}  // namespace

// Makes the device, once. Returns nullptr, or what went wrong.
extern "C" const char* simulated_mps_attach() {
  static std::string error;
  try {
    c10::SetAllocator(c10::DeviceType::MPS, &allocator);
    static c10::impl::DeviceGuardImplRegistrar registrar(c10::DeviceType::MPS, new Guard());
    register_kernels();
    replace_hooks();
    Engine::start_threads_if_late();
  } catch (const std::exception& failure) {
    error = failure.what();
    return error.c_str();
  }
  return nullptr;
}

// Blocks whose guard bytes were overwritten, freed ones included.
extern "C" size_t simulated_mps_broken_guards() {
  std::lock_guard<std::mutex> lock(blocks().mutex);
  size_t broken = blocks().broken;
  for (auto& [payload, bytes] : blocks().live) broken += !Blocks::intact(payload, bytes);
  return broken;
}

// How often a value left the device: what makes a Mac wait for its GPU.
extern "C" size_t simulated_mps_host_reads() { return host_reads; }
