// A stand-in for NVIDIA's libnvidia-ml.so.1: as much of it as joulemux-nvml
// calls, on a machine without NVIDIA's driver. The GPU in it draws 30 W, and
// renews its counter of energy every 100 ms.
//
// The environment says how it behaves:
//
//	NVML_STUB_LOG     file that gets a line for each call, and for loading
//	NVML_STUB_DEVICE  file that stands for /dev/nvidiactl: open while NVML is
//	NVML_STUB_DELAY   milliseconds that initialization takes
//	NVML_STUB_FAULT   what is wrong: "mismatch", "no-driver", "no-energy",
//	                  "no-figures", "lost", or "crash" and "hang" when it is read
//
// A library that lacks a function is made by defining WITHOUT_ENERGY or
// WITHOUT_SHUTDOWN when this is compiled.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// Return codes of nvml.h.
enum {
	SUCCESS = 0,
	UNINITIALIZED = 1,
	NOT_SUPPORTED = 3,
	NOT_FOUND = 6,
	DRIVER_NOT_LOADED = 9,
	GPU_IS_LOST = 15,
	LIB_RM_VERSION_MISMATCH = 18,
};

static int initialized;
static int device = -1;

// say writes a line in one piece.
static void say(const char *call)
{
	const char *path = getenv("NVML_STUB_LOG");
	int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
	if (fd < 0)
		return;
	dprintf(fd, "%s\n", call);
	close(fd);
}

static int is(const char *fault)
{
	const char *wanted = getenv("NVML_STUB_FAULT");
	return wanted && strcmp(wanted, fault) == 0;
}

__attribute__((constructor)) static void loaded(void) { say("load"); }

int nvmlInit_v2(void)
{
	const char *delay = getenv("NVML_STUB_DELAY"), *path = getenv("NVML_STUB_DEVICE");
	say("nvmlInit_v2");
	if (delay)
		usleep(atoi(delay) * 1000);
	if (is("mismatch"))
		return LIB_RM_VERSION_MISMATCH;
	if (is("no-driver"))
		return DRIVER_NOT_LOADED;
	if (path && device < 0)
		device = open(path, O_RDONLY | O_CLOEXEC);
	initialized++;
	return SUCCESS;
}

#ifndef WITHOUT_SHUTDOWN
int nvmlShutdown(void)
{
	say("nvmlShutdown");
	if (!initialized)
		return UNINITIALIZED;
	if (!--initialized && device >= 0) {
		close(device);
		device = -1;
	}
	return SUCCESS;
}
#endif

const char *nvmlErrorString(int code)
{
	switch (code) {
	case NOT_FOUND:
		return "Not Found";
	case DRIVER_NOT_LOADED:
		return "Driver Not Loaded";
	case GPU_IS_LOST:
		return "GPU is lost";
	case LIB_RM_VERSION_MISMATCH:
		return "Driver/library version mismatch";
	default:
		return "Unknown Error";
	}
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *address, void **handle)
{
	static int gpu;
	say("nvmlDeviceGetHandleByPciBusId_v2");
	if (!initialized)
		return UNINITIALIZED;
	if (strcmp(address, "0000:01:00.0") != 0)
		return NOT_FOUND;
	*handle = &gpu;
	return SUCCESS;
}

// read_gpu is what all reading has in common.
static int read_gpu(const char *call)
{
	say(call);
	if (is("crash"))
		abort();
	while (is("hang"))
		pause();
	if (is("lost"))
		return GPU_IS_LOST;
	if (is("no-figures"))
		return NOT_SUPPORTED;
	return initialized ? SUCCESS : UNINITIALIZED;
}

#ifndef WITHOUT_ENERGY
static unsigned long long milliseconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ULL + now.tv_nsec / 1000000;
}

int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *millijoules)
{
	int code = read_gpu("nvmlDeviceGetTotalEnergyConsumption");
	(void)handle;
	if (code == SUCCESS && is("no-energy"))
		return NOT_SUPPORTED;
	*millijoules = milliseconds() / 100 * 100 * 30;
	return code;
}
#endif

int nvmlDeviceGetPowerUsage(void *handle, unsigned int *milliwatts)
{
	(void)handle;
	*milliwatts = 30000;
	return read_gpu("nvmlDeviceGetPowerUsage");
}
