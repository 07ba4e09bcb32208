// Command demo shows one laptop's day: charge falls from line power to
// critical, and at each tier the real client asks the real daemon for answers.
//
// The laptop is made of what packaging/rig starts: a real upowerd on a
// simulated battery, private buses, and four real Ollamas on the CPU that
// stand in for the four devices. Nothing that it prints is scripted. It
// touches no other Ollama, bus or daemon, and leaves nothing behind.
//
//	go run ./packaging/demo           the day; exit code 0 if all of it was seen
//	go run ./packaging/demo -serve    the laptop on the usual ports, to play with
//
// MODEL names a model that the user's Ollama has pulled, to be used instead of
// a tiny one that talks nonsense.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	serving := flag.Bool("serve", false, "keep the laptop running on the usual ports, and take commands about its battery")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *serving); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, serving bool) (err error) {
	plan := day
	if serving {
		plan = served
	}
	l, err := start(ctx, plan)
	if err == nil {
		defer func() { err = errors.Join(err, l.close()) }()
		if serving {
			return l.serve(ctx)
		}
		return l.live(ctx)
	}
	return err
}

// say tells what is being done.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "demo: "+format+"\n", args...) }
