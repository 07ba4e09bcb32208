package rig

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// nvmlProgram says itself how it behaves.
//
//go:embed nvml/nvml.c
var nvmlProgram string

// NVML builds a stand-in for NVIDIA's libnvidia-ml.so.1 in a folder, for
// LD_LIBRARY_PATH. How it behaves is told by its environment, as nvml/nvml.c
// says; some functions can be left out, by the names that it has for that.
func NVML(ctx context.Context, folder string, without ...string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	args := []string{"-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-Wl,-soname,libnvidia-ml.so.1"}
	for _, name := range without {
		args = append(args, "-D"+name)
	}
	cmd := exec.CommandContext(ctx, "gcc", append(args, "-x", "c", "-", "-o", filepath.Join(folder, "libnvidia-ml.so.1"))...)
	cmd.Stdin = strings.NewReader(nvmlProgram)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build a stand-in for NVML: %w\n%s", err, out)
	}
	return nil
}
