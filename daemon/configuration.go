package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/joulemux/joulemux/daemon/backend/endpoint"
	"github.com/joulemux/joulemux/daemon/cache"
	"github.com/joulemux/joulemux/daemon/config"
	"github.com/joulemux/joulemux/daemon/document"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/token"
)

// configuration returns what the file says. If it has faults that is nothing:
// no backend is looked for, no port opened, and every job refused.
func (d *daemon) configuration() config.Config {
	c, err := load(d.Config, d.tokens)
	if err == nil {
		return c
	}
	nothing := config.Default()
	nothing.Ports, nothing.Server.HTTPPort, nothing.Server.GRPCPort = nil, 0, 0
	d.refusal = refusal(err)
	d.sayRefused(err)
	return nothing
}

// tokensBeside returns the tokens, which are in the folder of the configuration.
func tokensBeside(path string) *token.File {
	return token.Open(filepath.Join(filepath.Dir(path), token.FileName))
}

// load reads the configuration at path. It is a fault to let other machines in
// while there is no token by which to know them.
func load(path string, tokens *token.File) (config.Config, error) {
	c, err := config.Load(path)
	if err != nil || !c.Server.Exposed() {
		return c, err
	}
	all, err := tokens.All()
	text := fmt.Sprintf("%s is not a loopback address, which takes a token first: joulemux token create NAME, and then to reload", c.Server.Host)
	switch {
	case err != nil:
		text = fmt.Sprintf("%s is not a loopback address, which takes a token: %v", c.Server.Host, err)
	case len(all) > 0:
		return c, nil
	}
	return config.Config{}, fmt.Errorf("%s: %w", path, document.Faults{{Line: c.Server.HostLine, Key: "server.host", Text: text}})
}

// refusal is what jobs are answered with while no configuration is in force.
func refusal(err error) *job.Error {
	return job.Errorf(job.NoBackend, "the configuration has faults: %s", oneLine(err))
}

func (d *daemon) sayRefused(err error) {
	d.Log.Error("the configuration has faults, jobs are refused until it is mended", "err", err)
	d.status.blame("configuration has faults, jobs are refused: " + oneLine(err))
}

// oneLine puts a list of faults on one line.
func oneLine(err error) string {
	return strings.NewReplacer(":\n\t", ": ", "\n\t", "; ", "\n", "; ").Replace(err.Error())
}

// reload reads the configuration again. One with faults changes nothing, and
// says so wherever somebody may look.
func (d *daemon) reload(ctx context.Context) {
	c, err := load(d.Config, d.tokens)
	switch {
	case err == nil:
		d.take(ctx, c)
	case d.refusal == nil:
		d.Log.Error("the configuration has faults, the old one stays in force", "err", err)
		d.status.blame("configuration has faults, the old one is in force: " + oneLine(err))
	case d.refusal.Detail != refusal(err).Detail:
		d.refusal = refusal(err)
		d.apply(ctx, d.settings)
		d.sayRefused(err)
	}
}

// take puts a configuration into force.
func (d *daemon) take(ctx context.Context, c config.Config) {
	d.status.blame("")
	before, refused := d.settings, d.refusal != nil
	if !refused && reflect.DeepEqual(before, c) {
		return
	}
	d.settings, d.refusal = c, nil
	d.apply(ctx, c)
	// Of backends that are new nothing is known yet, for whoever looks.
	d.backends.LookHere(ctx)
	d.showStatus()
	if refused || c.LogLevel != before.LogLevel { // else what was set over the bus stays
		d.setLevel(c)
	}
	d.Log.Info("the configuration has changed")
	d.note(c)
	if refused {
		d.mended <- c.Server // the ports are opened only now
		before.Server.Host, before.Server.HTTPPort, before.Server.GRPCPort = c.Server.Host, c.Server.HTTPPort, c.Server.GRPCPort
	}
	d.warnOfListeners(before.Server, c.Server)
}

// apply hands the parts what a configuration says of them.
func (d *daemon) apply(ctx context.Context, c config.Config) {
	_ = d.tiers.Configure(ctx, c.Policy) // fails when the daemon ends
	d.tariff.Store(tariff(c.Energy))
	d.door.Configure(d.doorSettings(c))
	d.backends.Configure(specs(c))
	d.cache.Configure(cache.Settings(c.Cache))
	d.dispatcher.Configure(d.dispatchSettings(c))
	d.puller.Configure(pullRules(c))
	d.http.Configure(d.httpSettings(c))
	d.grpc.Limit(c.Limits.Body)
}

func (d *daemon) note(c config.Config) {
	for _, note := range c.Notes {
		d.Log.Info("configuration", "note", note)
	}
}

func (d *daemon) setLevel(c config.Config) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err == nil && !d.FixedLevel {
		d.Level.Set(level)
	}
}

// Check returns what is wrong with the configuration at path, and the remarks
// about one that is valid.
func Check(path string) (notes []string, err error) {
	tokens := tokensBeside(path)
	c, err := load(path, tokens)
	if err != nil {
		return nil, fmt.Errorf("the configuration has faults: %w", err)
	}
	if _, err := tokens.All(); err != nil {
		return nil, fmt.Errorf("the tokens have faults: %w", err)
	}
	return c.Notes, unusable(c)
}

// unusable returns which keys and certificates of a valid configuration cannot be
// used. The daemon runs with it, and the backends that need them do not.
func unusable(c config.Config) error {
	var errs []error
	for _, b := range c.Backends {
		if key := (endpoint.Key{File: b.KeyFile}); b.KeyFile != "" {
			if _, err := key.Read(); err != nil {
				errs = append(errs, fmt.Errorf("backend %s: %w", b.ID, err))
			}
		}
		if b.CA != "" {
			if _, err := endpoint.Authorities(b.CA); err != nil {
				errs = append(errs, fmt.Errorf("backend %s: %w", b.ID, err))
			}
		}
	}
	return errors.Join(errs...)
}
