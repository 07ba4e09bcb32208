package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/joulemux/joulemux/packaging/rig"
)

// hardware names the devices of the laptop, as a configuration does.
var hardware = [4]string{"npu", "igpu", "nvidia", "cpu"}

// device is an Ollama on the CPU that stands in for a piece of hardware.
type device struct {
	hardware string
	server   *rig.Ollama
}

func (d device) id() string { return "ollama-" + d.hardware }

func (l *laptop) startOllamas(ctx context.Context) error {
	var err error
	if l.ollama, err = rig.OllamaBinary(ctx); err != nil {
		return fmt.Errorf("find or build an Ollama: %w", err)
	}
	l.say("starting four Ollamas on the CPU, in place of NPU, integrated GPU, NVIDIA GPU and CPU")
	for i, name := range hardware {
		server, err := l.startOllama(ctx, i)
		if err != nil {
			return err
		}
		l.devices = append(l.devices, device{name, server})
	}
	return nil
}

// startOllama starts the Ollama in place of a device.
func (l *laptop) startOllama(ctx context.Context, i int) (*rig.Ollama, error) {
	models, err := l.models()
	if err != nil {
		return nil, err
	}
	o := rig.OllamaOptions{Binary: l.ollama, Addr: l.ollamas[i], Home: l.file("home"), Models: models, Log: l.log}
	server, err := rig.StartOllama(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("start an Ollama in place of the %s: %w", hardware[i], err)
	}
	l.keep(server)
	return server, nil
}

// stopDevice has the Ollama in place of a device end, and startDevice has another
// one there.
func (l *laptop) stopDevice(name string) error {
	i, err := indexOf(name)
	if err != nil {
		return err
	}
	return l.devices[i].server.Close()
}

func (l *laptop) startDevice(ctx context.Context, name string) error {
	i, err := indexOf(name)
	if err != nil {
		return err
	}
	select {
	case <-l.devices[i].server.Done():
	default:
		return fmt.Errorf("the %s is there", name)
	}
	server, err := l.startOllama(ctx, i)
	if err == nil {
		l.devices[i].server = server
	}
	return err
}

func indexOf(name string) (int, error) {
	i := slices.Index(hardware[:], name)
	if i < 0 {
		return 0, fmt.Errorf("%q is none of: %s", name, strings.Join(hardware[:], ", "))
	}
	return i, nil
}

// models is the folder of models that the four share: a new one, or the user's
// if MODEL names a model in it.
func (l *laptop) models() (string, error) {
	if os.Getenv("MODEL") == "" {
		return l.file("models"), nil
	}
	if folder := os.Getenv("OLLAMA_MODELS"); folder != "" {
		return folder, nil
	}
	folders := []string{"/usr/share/ollama/.ollama/models"} // Of a service's own user.
	if home, err := os.UserHomeDir(); err == nil {
		folders = append([]string{filepath.Join(home, ".ollama", "models")}, folders...)
	}
	for _, folder := range folders {
		if _, err := os.Stat(filepath.Join(folder, "manifests")); err == nil {
			return folder, nil
		}
	}
	return "", fmt.Errorf("MODEL is set, and there is no folder of models in %q; set OLLAMA_MODELS to it", folders)
}

// findModel sees to it that the four have a model.
func (l *laptop) findModel(ctx context.Context) error {
	if l.model = os.Getenv("MODEL"); l.model != "" {
		return l.askedFor(ctx)
	}
	l.model = l.tiny
	gguf, err := rig.TinyModel(ctx)
	if err != nil {
		return fmt.Errorf("find or make the tiny model: %w", err)
	}
	l.say("giving them a model that talks nonsense, %s", l.model)
	return rig.CreateModel(ctx, l.devices[0].server.URL(), l.model, gguf)
}

// askedFor complains if the model is not among the user's.
func (l *laptop) askedFor(ctx context.Context) error {
	body, err := json.Marshal(map[string]string{"model": l.model})
	if err != nil {
		return err
	}
	url := l.devices[0].server.URL() + "/api/show"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Close = true // Leave no idle connection behind.
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New("MODEL=" + l.model + " is none of the models here: OLLAMA_MODELS says where they are, and \"ollama pull\" gets one")
	}
	return nil
}
