package rig

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// OllamaOptions say how to start an Ollama.
type OllamaOptions struct {
	Binary string    // As from OllamaBinary.
	Addr   string    // Where to listen; "" is a free port of 127.0.0.1.
	Home   string    // Its HOME: it writes a key there.
	Models string    // Its folder of models; several servers can share one. "" is one in Home.
	Env    []string  // More of its environment, such as OLLAMA_KEEP_ALIVE=1s.
	Log    io.Writer // What it says; can be nil.
}

// An Ollama is a real server. It uses the CPU alone, whatever the machine has,
// so no sleeping GPU is woken by a test, and it reaches for no other server.
type Ollama struct {
	process *Process
	addr    string
}

// StartOllama starts a server, and returns when it answers.
func StartOllama(ctx context.Context, o OllamaOptions) (*Ollama, error) {
	listening := newHerald(`Listening on ([0-9.:]+)`, o.Log)
	cmd := command(ctx, o.Binary, "serve")
	cmd.Env = append(cmd.Env, o.environment()...)
	cmd.Stdout, cmd.Stderr = listening, listening
	p, err := StartFamily(cmd) // It starts a runner for each model.
	if err != nil {
		return nil, err
	}
	s := &Ollama{process: p}
	if s.addr, err = listening.from(ctx, p); err == nil {
		err = p.Await(ctx, s.answers)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (o OllamaOptions) environment() []string {
	addr, models := o.Addr, o.Models
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	if models == "" {
		models = filepath.Join(o.Home, "models")
	}
	env := []string{
		"HOME=" + o.Home,
		"OLLAMA_HOST=" + addr,
		"OLLAMA_MODELS=" + models,
		"OLLAMA_NOPRUNE=1",       // Others may use the same models.
		"OLLAMA_NO_CLOUD=1",      // No models that run elsewhere.
		"OLLAMA_LLM_LIBRARY=cpu", // None of its libraries for GPUs has that name.
	}
	return append(env, o.Env...)
}

func (s *Ollama) answers(ctx context.Context) error {
	return request(ctx, http.MethodGet, s.URL()+"/api/version", nil)
}

// URL is the server's address, without a slash at its end.
func (s *Ollama) URL() string { return "http://" + s.addr }

// PID is the server's process.
func (s *Ollama) PID() int { return s.process.PID() }

// Runners are the server's children: one for each model in memory.
func (s *Ollama) Runners() ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var runners []int
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // It has just ended.
		}
		pid, group := identify(string(stat))
		if group == s.PID() && pid != s.PID() {
			runners = append(runners, pid)
		}
	}
	return runners, nil
}

// identify reads a process's number and that of its group from its stat file:
// pid (comm) state ppid pgrp …, where comm can hold spaces (proc(5)).
func identify(stat string) (pid, group int) {
	first, _, _ := strings.Cut(stat, " ")
	rest := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	pid, _ = strconv.Atoi(first)
	if len(rest) > 2 {
		group, _ = strconv.Atoi(rest[2])
	}
	return pid, group
}

// Freeze stops the server and its runners, as they are: connections stay, and
// nothing answers.
func (s *Ollama) Freeze() error { return s.process.signalGroup(syscall.SIGSTOP) }

// FreezeRunners stops the runners alone: the server takes requests, and no
// token comes.
func (s *Ollama) FreezeRunners() error {
	runners, err := s.Runners()
	if err == nil && len(runners) == 0 {
		err = errors.New("no model is in memory, so there is no runner to freeze")
	}
	for _, pid := range runners {
		err = errors.Join(err, syscall.Kill(pid, syscall.SIGSTOP))
	}
	return err
}

// Thaw lets go on what was frozen.
func (s *Ollama) Thaw() error { return s.process.signalGroup(syscall.SIGCONT) }

// Kill ends the server and its runners without warning.
func (s *Ollama) Kill() error { return s.process.Kill() }

// Done is closed when the server has ended.
func (s *Ollama) Done() <-chan struct{} { return s.process.Done() }

// Close stops the server, which stops its runners.
func (s *Ollama) Close() error {
	return errors.Join(s.Thaw(), s.process.Close()) // What is frozen cannot hear.
}
