package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// series is how many the daemon is to tell of.
const series = 10_000

// measureMetrics measures what a scrape takes when there are many series: as text,
// and as Prometheus asks for it.
func measureMetrics(ctx context.Context, p plan) (rows []row, err error) {
	const models = 670
	w, err := newWorld(ctx, 1, models)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	url := w.joulemuxd.url + "/metrics"
	fmt.Fprintf(os.Stderr, "metrics: jobs of both classes with %d models\n", models)
	for n := range models {
		for _, class := range []string{"interactive", "background"} {
			if err := ollamaChat(numbered(n), false, 0).as(class).ask(ctx, client, w.joulemuxd.url); err != nil {
				return nil, err
			}
		}
	}
	told, err := countSeries(ctx, client, url)
	if err != nil {
		return nil, err
	}
	if told < series {
		return nil, fmt.Errorf("there are only %d series, want %d", told, series)
	}
	for _, asked := range []struct {
		how    string
		header http.Header
	}{
		{"as text", nil},
		{"as Prometheus asks", http.Header{
			"Accept":          {"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.1"},
			"Accept-Encoding": {"gzip"},
		}},
	} {
		scrape := func(ctx context.Context) (time.Duration, error) {
			start := time.Now()
			err := get(ctx, client, url, asked.header)
			return time.Since(start), err
		}
		var wall, spent []float64
		for range p.rounds + 1 {
			each, err := w.joulemuxd.spent(ctx, p.streams, func(ctx context.Context) (time.Duration, error) {
				d, err := scrape(ctx)
				wall = append(wall, micros(d)/1000)
				return d, err
			})
			if err != nil {
				return nil, err
			}
			spent = append(spent, each/1000)
		}
		for _, one := range []struct {
			what   string
			values []float64
		}{{"CPU", spent[1:]}, {"median", wall[p.streams:]}} {
			value := median(one.values)
			rows = append(rows, row{
				what:     fmt.Sprintf("%d metrics %s, %s", told, asked.how, one.what),
				joulemux: fmt.Sprintf("%.2f ms", value), baseline: "-", value: value, target: 2, unit: " ms",
			})
		}
	}
	return rows, nil
}

// countSeries counts the lines with values.
func countSeries(ctx context.Context, client *http.Client, url string) (n int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	for line := range bytes.Lines(text) {
		if line[0] != '#' {
			n++
		}
	}
	return n, err
}
