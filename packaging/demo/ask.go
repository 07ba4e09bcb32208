package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

// prompt is what every job asks.
const prompt = "Why is the sky blue?"

// answer is what came of a job: a report, by the names that its members have
// on the wires, or an error.
type answer struct {
	Backend         string   `json:"backend_used"`
	Tier            string   `json:"tier"`
	Reason          string   `json:"reason"`
	TokensPerSecond float64  `json:"tokens_per_second"`
	EnergyJoules    *float64 `json:"energy_joules"`
	EnergyQuality   string   `json:"energy_quality"`
	EnergySource    string   `json:"energy_source"`

	refusal *wire.Error
}

// outcome is what a job came to, in a word.
type outcome string

const (
	answered outcome = "answered"
	waits    outcome = "waits"
	refused  outcome = "refused"
	failed   outcome = "failed"
)

func (a answer) outcome() outcome {
	switch {
	case a.refusal == nil:
		return answered
	case a.refusal.Code == wire.CodeDeadlinePassed:
		return waits
	case a.refusal.Code == wire.CodePowerPolicy:
		return refused
	default:
		return failed
	}
}

// generate asks the client joulemux. The error is for a client that says
// nothing of use; a job that fails is an answer.
func (l *laptop) generate(ctx context.Context, flags ...string) (answer, error) {
	args := append([]string{"generate", "--json", "--max-tokens", "24"}, flags...)
	out, err := l.output(ctx, l.file("bin", "joulemux"), append(args, prompt)...)
	a, readErr := readEvents(out)
	if readErr != nil {
		return a, fmt.Errorf("joulemux: %w", errors.Join(err, readErr))
	}
	return a, nil
}

// readEvents reads what "joulemux generate --json" writes: what counts is its
// last line.
func readEvents(lines []byte) (answer, error) {
	decoder := json.NewDecoder(bytes.NewReader(lines))
	for {
		var e wire.Event
		if err := decoder.Decode(&e); err != nil {
			return answer{}, fmt.Errorf("its answer has no end: %w", err)
		}
		switch {
		case e.Error != nil:
			return answer{refusal: e.Error}, nil
		case e.End != nil:
			return report(e.End)
		}
	}
}

// generateOverDBus asks with busctl, which knows nothing of joulemux.
func (l *laptop) generateOverDBus(ctx context.Context, _ ...string) (answer, error) {
	out, err := l.output(ctx, "busctl", "--user", "--json=short", "--timeout=60", "call",
		"io.github.joulemux.Inference1", "/io/github/joulemux/Inference1", "io.github.joulemux.Inference1",
		"Generate", "sa{sv}", prompt, "1", "max_tokens", "i", "24")
	if errors.Is(err, exec.ErrNotFound) {
		return answer{}, fmt.Errorf("%w: it is in Debian's package systemd", err)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return answer{refusal: &wire.Error{Text: string(out), Code: wire.CodeBackendFailed}}, nil
	}
	if err != nil {
		return answer{}, fmt.Errorf("busctl: %w", err)
	}
	return readReply(out)
}

// readReply reads a reply of the form "sa{sv}" as busctl writes it.
func readReply(text []byte) (answer, error) {
	type variant struct {
		Data any `json:"data"`
	}
	var reply struct {
		Data []json.RawMessage `json:"data"`
	}
	err := json.Unmarshal(text, &reply)
	if err == nil && len(reply.Data) != 2 {
		err = fmt.Errorf("%d values, want 2", len(reply.Data))
	}
	if err != nil {
		return answer{}, fmt.Errorf("read busctl's %q: %w", text, err)
	}
	var info map[string]variant
	if err := json.Unmarshal(reply.Data[1], &info); err != nil {
		return answer{}, fmt.Errorf("read busctl's %q: %w", text, err)
	}
	fields := make(map[string]any)
	for name, v := range info {
		fields[name] = v.Data
	}
	return report(fields)
}

func report(fields map[string]any) (answer, error) {
	var a answer
	text, err := json.Marshal(fields)
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	return a, err
}

// output runs a program on the laptop and returns what it writes, or what it
// complains of if it writes nothing.
func (l *laptop) output(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := l.command(ctx, name, args...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := complete(ctx, cmd)
	if out.Len() == 0 {
		return bytes.TrimSpace(complaint.Bytes()), err
	}
	return out.Bytes(), err
}
