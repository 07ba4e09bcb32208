// Package rig starts the real parts that joulemux works with, so that tests
// and the demo need no laptop and mock no daemon: a bus, a machine with a
// simulated battery under a real upowerd, a real power-profiles-daemon, and a
// real Ollama with a tiny model.
//
// Each part keeps to a private folder and a private bus, and touches neither
// the machine's power supplies nor the state of its daemons. Each has a Close,
// and none outlives us, even if we are killed. What has to be installed is
// known to the script "install" beside this file; the scripts "userns" and
// "system" start what is not here, a real user manager of systemd and one for
// the system.
//
// Tests of other packages and the demo use it; nothing in the product does.
package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// OllamaBinary returns the path of an Ollama, and builds it first where it is
// neither on PATH nor in the user's cache. That takes minutes, so a test run
// is better preceded by packaging/rig/ollama, which this calls.
func OllamaBinary(ctx context.Context) (string, error) {
	return ask(ctx, "ollama")
}

// OllamaSuite returns the path of the integration suite of Ollama. It has to
// run in the folder that it is in.
func OllamaSuite(ctx context.Context) (string, error) {
	return ask(ctx, "ollama", "suite")
}

// TinyModel returns the path of a GGUF file, half a megabyte, that any Ollama
// can run. It talks nonsense in whole English sentences.
func TinyModel(ctx context.Context) (string, error) {
	return ask(ctx, "ollama", "model")
}

// ask runs a script of this folder, and returns the path that it prints. What
// it has to say about its work goes to our standard error.
func ask(ctx context.Context, script string, args ...string) (string, error) {
	path, err := Script(script)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	cmd := command(ctx, path, args...)
	cmd.Env = nil // The user's own: it says where Go keeps things.
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	p, err := Start(cmd)
	if err != nil {
		return "", err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		return "", errors.Join(ctx.Err(), p.Kill())
	}
	if err := p.Err(); err != nil {
		return "", fmt.Errorf("%s: %w", script, err)
	}
	return strings.TrimSpace(out.String()), nil
}

// Script returns the path of a script of this folder, such as userns, from
// wherever in the source tree of joulemux we are.
func Script(name string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		path := filepath.Join(dir, "packaging", "rig", name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no packaging/rig here or above: not in the source tree of joulemux")
		}
		dir = parent
	}
}

// newDir makes a folder for the files of a part. It is our own and not a
// test's, whose path can be too long for the sockets in it: 107 bytes.
func newDir(part string) (string, error) {
	return os.MkdirTemp("", "rig-"+part+"-")
}

// command is a program that lives until its Close: ctx is for its start alone.
// Its environment is little, so that nothing which the user has set sways it.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), name, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8"}
	return cmd
}

// daemon returns the first of the places that holds a program. Distributions
// disagree about where those that nobody calls by hand belong.
func daemon(name string, folders ...string) (string, error) {
	for _, folder := range folders {
		if path, err := exec.LookPath(filepath.Join(folder, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is in none of %s; packaging/rig/install gets it", name, strings.Join(folders, ", "))
}

// discard is the log of who wants none.
func discard(log io.Writer) io.Writer {
	if log == nil {
		return io.Discard
	}
	return log
}
