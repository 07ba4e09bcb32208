package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

// get asks the daemon on its socket.
func (l *laptop) get(ctx context.Context, path string) (*http.Response, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", l.path("run", "joulemux", "api.sock"))
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return nil, err
	}
	return client.Do(req)
}

func (l *laptop) status(ctx context.Context) (s wire.Status, err error) {
	resp, err := l.get(ctx, "/joulemux/v1/status")
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

// await waits until the daemon is on a tier, and has seen a charge. It watches,
// and so sees it as soon as the daemon does.
func (l *laptop) await(ctx context.Context, tier string, charge float64) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	resp, err := l.get(ctx, "/joulemux/v1/status?watch")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var s wire.Status
	for lines := json.NewDecoder(resp.Body); s.Tier != tier || s.Supply.ChargePercent != charge; {
		s = wire.Status{}
		if err := lines.Decode(&s); err != nil {
			return fmt.Errorf("the tier does not become %s: %w", tier, err)
		}
	}
	return nil
}

// outcome is what became of a question.
type outcome struct {
	text  string
	end   map[string]any // what it took, if it was answered
	error *wire.Error
}

// generate asks with the real client.
func (l *laptop) generate(ctx context.Context, prompt string, flags ...string) (outcome, error) {
	args := append([]string{"generate", "--json", "--max-tokens", "24"}, append(flags, prompt)...)
	out, err := l.output(ctx, "joulemux", args...)
	var o outcome
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var e wire.Event
		var refused wire.Error
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			// What fails before there is an answer is an error alone.
			if json.Unmarshal(lines.Bytes(), &refused) == nil {
				o.error = &refused
			}
			continue
		}
		o.text += e.Text
		if e.End != nil {
			o.end = e.End
		}
		if e.Error != nil {
			o.error = e.Error
		}
	}
	if o.end == nil && o.error == nil {
		return o, fmt.Errorf("joulemux %s: %w", strings.Join(args, " "), errors.Join(err, errors.New("no end and no error")))
	}
	return o, nil
}

// generateOverBus asks with busctl, which knows nothing of us.
func (l *laptop) generateOverBus(ctx context.Context, prompt string) (outcome, error) {
	out, err := l.output(ctx, "busctl", "--user", "--json=short", "call",
		"io.github.joulemux.Inference1", "/io/github/joulemux/Inference1", "io.github.joulemux.Inference1",
		"Generate", "sa{sv}", prompt, "1", "max_tokens", "i", "24")
	if err != nil {
		return outcome{}, fmt.Errorf("busctl: %w", err)
	}
	var reply struct{ Data []json.RawMessage }
	if err := json.Unmarshal(out, &reply); err != nil || len(reply.Data) != 2 {
		return outcome{}, fmt.Errorf("busctl printed %.100q: %w", out, err)
	}
	var text string
	var info map[string]struct{ Data any }
	if err := errors.Join(json.Unmarshal(reply.Data[0], &text), json.Unmarshal(reply.Data[1], &info)); err != nil {
		return outcome{}, fmt.Errorf("busctl: %w", err)
	}
	o := outcome{text: text, end: make(map[string]any)}
	for key, value := range info {
		o.end[key] = value.Data
	}
	return o, nil
}

// output runs a program as the laptop's user would.
func (l *laptop) output(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if name == "joulemux" {
		name = l.path("bin", name)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Stderr = append(os.Environ(), l.env...), io.Discard
	return cmd.Output()
}
