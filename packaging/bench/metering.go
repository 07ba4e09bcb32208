package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/joulemux/joulemux/packaging/rig"
)

// measureMetering compares the processor time of jobs with a sensor to read and
// without any. The counter is a file: the time that the kernel takes to ask the
// processor for it is not in the figure.
func measureMetering(ctx context.Context, p plan) (rows []row, err error) {
	w, err := newWorld(ctx, 1, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	sys := filepath.Join(w.dir, "sys")
	for name, text := range map[string]string{"name": "package-0", "energy_uj": "1000000", "max_energy_range_uj": "262143328850"} {
		file := filepath.Join(sys, "class/powercap/intel-rapl:0", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text+"\n"), 0o600)); err != nil {
			return nil, err
		}
	}
	session, err := rig.StartBus(ctx)
	if err != nil {
		return nil, err
	}
	w.later(session.Close)
	sensing, err := w.another(ctx, w.program(), "metered", sys, session)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	metered, unmetered := proxy{sensing.process, sensing.url, client}, proxy{w.joulemuxd.process, w.joulemuxd.url, client}
	for _, l := range []load{
		{"CPU per chat, with a sensor and without", chat(false, 0), chat(false, 0), p.requests, 1.05},
		{fmt.Sprintf("CPU per stream of %d pieces, likewise", pieces), chat(true, pause), chat(true, pause), p.streams, 1.05},
	} {
		fmt.Fprintf(os.Stderr, "%s: %d rounds of %d\n", l.what, p.rounds, l.count)
		r, err := l.compare(ctx, metered, unmetered, p.rounds)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}
