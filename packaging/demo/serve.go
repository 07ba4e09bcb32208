package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// serve keeps the laptop running, and takes commands about its battery, until
// "quit" or ctx is done.
func (l *laptop) serve(ctx context.Context) error {
	l.explain()
	lines := make(chan string)
	go func() {
		// Reading a terminal cannot be cancelled; this ends with the program.
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			lines <- in.Text()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case line := <-lines:
			words := strings.Fields(line)
			if len(words) == 1 && words[0] == "quit" {
				return nil
			}
			if err := l.command(words); err != nil {
				say("%v", err)
			}
		}
	}
}

// command changes the battery.
func (l *laptop) command(words []string) error {
	switch {
	case len(words) == 0:
		return nil
	case len(words) == 1 && words[0] == "plug":
		return l.machine.Plug()
	case len(words) == 1 && words[0] == "unplug":
		return l.machine.Unplug()
	case len(words) == 2 && words[0] == "charge":
		percent, err := strconv.Atoi(words[1])
		if err != nil || percent < 0 || percent > 100 {
			return fmt.Errorf("want a charge from 0 to 100, got %q", words[1])
		}
		return l.machine.SetCharge(percent)
	default:
		return fmt.Errorf("want plug, unplug, charge PERCENT or quit, got %q", strings.Join(words, " "))
	}
}

// explain says how to reach the laptop.
func (l *laptop) explain() {
	fmt.Print(`
The laptop runs. Four Ollamas on the CPU stand in for its devices. In another terminal:

`)
	for _, v := range l.env {
		name, value, _ := strings.Cut(v, "=")
		if name == "XDG_RUNTIME_DIR" || name == "DBUS_SESSION_BUS_ADDRESS" {
			fmt.Printf("    export %s='%s'\n", name, value)
		}
	}
	fmt.Printf(`    export PATH="%s:$PATH" OLLAMA_HOST=127.0.0.1:%d

    joulemux status --follow
    joulemux generate "Why is the sky blue?"
    curl -N --unix-socket $XDG_RUNTIME_DIR/joulemux/api.sock http://localhost/api/generate -d '{"model": "%s", "prompt": "hi"}'
    busctl --user call io.github.joulemux.Inference1 /io/github/joulemux/Inference1 io.github.joulemux.Inference1 Generate 'sa{sv}' hi 0
    ollama list

Here: plug, unplug, charge PERCENT, quit.
`, l.path("bin"), l.http, l.model)
}
