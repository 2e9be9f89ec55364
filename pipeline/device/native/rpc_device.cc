// A TVM RPC server without Python: what an emulated (or real) aarch64 Linux device runs.
//
// It registers with a tracker under a key and serves one client at a time, each in a forked child,
// so that a library that crashes takes only its own session down. It links nothing but
// libtvm_runtime.so and libtvm_ffi.so of the aarch64 wheels.
//
// Beside what every TVM server offers, a client can call
//   dev.info()                                            -> JSON: CPU features, how the last session ended
//   dev.icount(module, function, warmup, runs, args...)   -> block profile (see icount.c), then "maps\n"
//                                                            and /proc/self/maps of the session
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <random>
#include <sstream>
#include <string>

namespace ffi = tvm::ffi;

// tvm/rpc/base.py: the first words of a connection, and the tracker's commands.
constexpr int kServerMagic = 0xFF271;
constexpr int kServerMismatch = kServerMagic + 2;
constexpr int kTrackerMagic = 0x2F271;
enum TrackerCode { kPut = 3, kUpdateInfo = 5, kGetPendingMatchKeys = 7 };

// Markers that icount.c listens for. No kernel has these system calls: they return -ENOSYS.
constexpr long kCountReset = 0x1c0de1;
constexpr long kCountDump = 0x1c0de2;

struct Options {
  std::string host = "127.0.0.1", key = "device", tracker_host, emulated_cpu, work = "/tmp", profile;
  int port = 9090, tracker_port = 0;
};

// ---------------------------------------------------------------- sockets

/*! \brief A connected or listening TCP socket, closed when it goes out of scope. */
class Socket {
 public:
  explicit Socket(int fd = -1) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Socket& operator=(Socket&& other) noexcept { std::swap(fd_, other.fd_); return *this; }
  ~Socket() { if (fd_ >= 0) close(fd_); }
  int fd() const { return fd_; }

  bool Send(const void* data, size_t size) const {
    const char* at = static_cast<const char*>(data);
    for (ssize_t sent; size > 0; at += sent, size -= sent) {
      sent = send(fd_, at, size, MSG_NOSIGNAL);
      if (sent <= 0) return false;
    }
    return true;
  }
  bool Receive(void* data, size_t size) const {
    char* at = static_cast<char*>(data);
    for (ssize_t got; size > 0; at += got, size -= got) {
      got = recv(fd_, at, size, 0);
      if (got <= 0) return false;
    }
    return true;
  }
  bool Send(int value) const { return Send(&value, sizeof value); }
  bool Send(const std::string& text) const {
    return Send(static_cast<int>(text.size())) && Send(text.data(), text.size());
  }
  std::optional<int> ReceiveInt() const {
    int value;
    return Receive(&value, sizeof value) ? std::optional<int>(value) : std::nullopt;
  }
  std::optional<std::string> ReceiveString() const {
    std::optional<int> size = ReceiveInt();
    if (!size || *size < 0 || *size > (1 << 20)) return std::nullopt;
    std::string text(*size, '\0');
    return Receive(text.data(), text.size()) ? std::optional<std::string>(text) : std::nullopt;
  }

 private:
  int fd_;
};

sockaddr_in Address(const std::string& host, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  inet_pton(AF_INET, host.c_str(), &address.sin_addr);
  return address;
}

std::optional<Socket> Connect(const std::string& host, int port) {
  Socket out(socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address = Address(host, port);
  if (connect(out.fd(), reinterpret_cast<sockaddr*>(&address), sizeof address)) return std::nullopt;
  return out;
}

std::optional<Socket> Listen(const std::string& host, int port) {
  Socket out(socket(AF_INET, SOCK_STREAM, 0));
  int one = 1;
  setsockopt(out.fd(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  sockaddr_in address = Address(host, port);
  if (bind(out.fd(), reinterpret_cast<sockaddr*>(&address), sizeof address)) return std::nullopt;
  if (listen(out.fd(), 4)) return std::nullopt;
  return out;
}

// ---------------------------------------------------------------- the tracker

/*! \brief This device's standing connection to the tracker. */
class Tracker {
 public:
  static std::optional<Tracker> Register(const Options& options) {
    std::optional<Socket> link = Connect(options.tracker_host, options.tracker_port);
    if (!link || !link->Send(kTrackerMagic) || link->ReceiveInt() != kTrackerMagic) return std::nullopt;
    Tracker tracker(std::move(*link));
    std::ostringstream info;
    info << "[" << kUpdateInfo << ", {\"key\": \"server:" << options.key << "\", \"addr\": [\""
         << options.host << "\", " << options.port << "]}]";
    if (!tracker.Ask(info.str())) return std::nullopt;
    return tracker;
  }
  /*! \brief Offer the device to the next client, who must present `match`. */
  bool Offer(const Options& options, const std::string& match) const {
    std::ostringstream put;
    put << "[" << kPut << ", \"" << options.key << "\", [" << options.port << ", \"" << match
        << "\"], \"" << options.host << "\"]";
    return Ask(put.str()) == "0";
  }
  /*! \brief Offers that no client has taken yet, as JSON; nothing if the tracker is gone. */
  std::optional<std::string> Pending() const {
    return Ask("[" + std::to_string(kGetPendingMatchKeys) + "]");
  }

 private:
  explicit Tracker(Socket link) : link_(std::move(link)) {}
  std::optional<std::string> Ask(const std::string& command) const {
    if (!link_.Send(command)) return std::nullopt;
    return link_.ReceiveString();
  }
  Socket link_;
};

// ---------------------------------------------------------------- what a client can call

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string CpuFeatures() {
  std::string list;
#ifdef __aarch64__
  auto add = [&](bool present, const char* name) {
    if (present) list += std::string(list.empty() ? "\"" : ", \"") + name + "\"";
  };
  unsigned long low = getauxval(AT_HWCAP), high = getauxval(AT_HWCAP2);
  add(low & (1ul << 1), "neon");
  add(low & (1ul << 10), "fp16");
  add(low & (1ul << 20), "dotprod");
  add(low & (1ul << 22), "sve");
  add(high & (1ul << 13), "i8mm");
  add(high & (1ul << 23), "sme");
#endif
  return "[" + list + "]";
}

ffi::String CountInstructions(const Options& options, ffi::PackedArgs args) {
  if (options.profile.empty()) {
    TVM_FFI_THROW(RuntimeError) << "this device was started without instruction counting";
  }
  static int sequence = 0;
  ffi::Function function = args[0].cast<ffi::Module>()->GetFunction(args[1].cast<ffi::String>(), true).value();
  int warmup = args[2].cast<int>(), runs = args[3].cast<int>();
  ffi::PackedArgs arguments = args.Slice(4);
  ffi::Any result;
  for (int i = 0; i < warmup; ++i) function.CallPacked(arguments, &result);
  syscall(kCountReset);
  for (int i = 0; i < runs; ++i) function.CallPacked(arguments, &result);
  syscall(kCountDump);
  std::string path = options.profile + "." + std::to_string(getpid()) + "." + std::to_string(sequence++);
  std::string profile = ReadFile(path);
  unlink(path.c_str());
  if (profile.empty()) TVM_FFI_THROW(RuntimeError) << "the counting plugin wrote nothing to " << path;
  return profile + "maps\n" + ReadFile("/proc/self/maps");
}

void RegisterFunctions(const Options& options, const int& last_signal) {
  // The session changes to its own folder, so names of uploaded files are simply relative to it.
  auto path = [](const ffi::String& name) { return ffi::String(std::filesystem::absolute(std::string(name)).string()); };
  tvm::ffi::reflection::GlobalDef()
      .def("tvm.rpc.server.workpath", path)
      .def("tvm.rpc.server.load_module", [path](const ffi::String& name) { return ffi::Module::LoadFromFile(path(name)); })
      .def("dev.info",
           [&]() {
             std::ostringstream json;
             json << "{\"emulated_cpu\": \"" << options.emulated_cpu << "\", \"counts_instructions\": "
                  << (options.profile.empty() ? "false" : "true") << ", \"features\": " << CpuFeatures()
                  << ", \"last_signal\": " << last_signal << "}";
             return ffi::String(json.str());
           })
      .def_packed("dev.icount", [&](ffi::PackedArgs args, ffi::Any* result) { *result = CountInstructions(options, args); });
}

// ---------------------------------------------------------------- sessions

/*! \brief Wait for a session; end it by force if its client is gone and it does not stop by itself. */
int WaitForSession(pid_t child, const Socket& client) {
  int status = 0, grace_ms = 1000;
  for (;;) {
    if (waitpid(child, &status, WNOHANG) == child) return status;
    pollfd hangup{client.fd(), POLLRDHUP, 0};
    if (poll(&hangup, 1, 20) > 0) {  // readable end closed: poll returns at once from now on
      usleep(20000);
      if ((grace_ms -= 20) <= 0) kill(child, SIGKILL);
    }
  }
}

/*! \brief Serve one client in a forked child; returns the signal that ended it, or 0. */
int Serve(const Options& options, const Socket& listener, const Socket& client, int timeout_s) {
  std::string folder = options.work + "/session-XXXXXX";
  if (!mkdtemp(folder.data())) { perror(folder.c_str()); return 0; }
  pid_t child = fork();
  if (child == 0) {
    close(listener.fd());
    if (chdir(folder.c_str())) _exit(1);
    if (timeout_s > 0) alarm(timeout_s);
    ffi::Function::GetGlobalRequired("rpc.ServerLoop")(static_cast<int64_t>(client.fd()));
    _exit(0);
  }
  int status = WaitForSession(child, client);
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/*! \brief Shake hands with a client that must know `match`; returns its session limit in seconds. */
std::optional<int> Accept(const Options& options, const Socket& client, const std::string& match) {
  if (client.ReceiveInt() != kServerMagic) return std::nullopt;
  std::optional<std::string> hello = client.ReceiveString();  // "client:<match> [-timeout=<seconds>]"
  if (!hello) return std::nullopt;
  if (hello->substr(0, hello->find(' ')) != "client:" + match) {
    client.Send(kServerMismatch);
    return std::nullopt;
  }
  int one = 1;
  setsockopt(client.fd(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (!client.Send(kServerMagic) || !client.Send("server:" + options.key)) return std::nullopt;
  size_t at = hello->find("-timeout=");
  return at == std::string::npos ? 0 : static_cast<int>(std::atof(hello->c_str() + at + 9) + 0.999);
}

/*! \brief Wait until a client has come and gone, or until the offer to the tracker is void. */
void ServeOne(const Options& options, const Tracker& tracker, const Socket& listener, const std::string& match,
              int* last_signal) {
  for (int taken = 0; taken <= 6;) {  // taken from the tracker but never used: offer anew
    pollfd waiting{listener.fd(), POLLIN, 0};
    if (poll(&waiting, 1, 500) == 0) {
      std::optional<std::string> pending = tracker.Pending();
      if (!pending) return;
      taken = pending->find("\"" + match + "\"") == std::string::npos ? taken + 1 : 0;
      continue;
    }
    Socket client(accept(listener.fd(), nullptr, nullptr));
    if (client.fd() < 0) continue;
    std::optional<int> timeout_s = Accept(options, client, match);
    if (!timeout_s) continue;
    *last_signal = Serve(options, listener, client, *timeout_s);
    std::cerr << "session ended, signal " << *last_signal << std::endl;
    return;
  }
}

bool Parse(int argc, char** argv, Options* options) {
  for (int i = 1; i + 1 < argc; i += 2) {
    std::string name = argv[i], value = argv[i + 1];
    if (name == "--host") options->host = value;
    else if (name == "--port") options->port = std::stoi(value);
    else if (name == "--key") options->key = value;
    else if (name == "--work") options->work = value;
    else if (name == "--emulated-cpu") options->emulated_cpu = value;
    else if (name == "--profile") options->profile = value;
    else if (name == "--tracker") {
      size_t colon = value.rfind(':');
      options->tracker_host = value.substr(0, colon);
      options->tracker_port = std::stoi(value.substr(colon + 1));
    } else if (name == "--load") {
      if (!dlopen(value.c_str(), RTLD_NOW | RTLD_GLOBAL)) { std::cerr << dlerror() << std::endl; return false; }
    } else { std::cerr << "unknown option " << name << std::endl; return false; }
  }
  return options->tracker_port > 0;
}

int main(int argc, char** argv) {
  Options options;
  if (!Parse(argc, argv, &options)) {
    std::cerr << "usage: rpc_device --tracker HOST:PORT --key KEY [--host IP] [--port N] [--work DIR] [--load LIB]\n"
                 "                  [--emulated-cpu NAME] [--profile PREFIX]" << std::endl;
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  int last_signal = 0;
  RegisterFunctions(options, last_signal);
  std::optional<Socket> listener = Listen(options.host, options.port);
  if (!listener) { perror("cannot listen"); return 1; }
  std::mt19937 random{std::random_device{}()};
  for (;;) {
    std::optional<Tracker> tracker = Tracker::Register(options);
    if (!tracker) { usleep(100000); continue; }
    for (;;) {
      std::string match = options.key + ":0." + std::to_string(random());
      if (!tracker->Offer(options, match)) break;
      ServeOne(options, *tracker, *listener, match, &last_signal);
    }
  }
}
