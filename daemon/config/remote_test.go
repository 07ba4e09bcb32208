package config_test

import (
	"net/url"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/config"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

func TestARemoteBackend(t *testing.T) {
	t.Setenv("HOME", "/home/somebody")
	c, err := config.Parse([]byte(`
backends:
  - id: home
    hardware: cloud
    endpoint: https://home.example:8443/v1
    type: vllm
    ca: ~/home.pem
    key_file: /run/keys/home
    models: {"qwen3:32b": Qwen/Qwen3-32B}
    allow: {clients: [editor, "*"], classes: [interactive, background]}
    when: cheaper
    price: {per_million_input: 0.15, per_million_output: 0.6, currency: EUR}
  - {id: vendor, hardware: cloud, endpoint: "https://api.example.com", key_credential: vendor, models: {gpt: gpt-5-mini}, allow: {clients: [a], classes: [background]}}
  - {id: ollama-cpu, hardware: cpu, endpoint: "http://127.0.0.1:11434", key_file: /k}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []config.Backend{
		{
			ID: "home", Type: "vllm", Hardware: power.Cloud, Endpoint: url.URL{Scheme: "https", Host: "home.example:8443", Path: "/v1"},
			Models: map[string]string{"qwen3:32b": "Qwen/Qwen3-32B"}, CA: filepath.Join("/home/somebody", "home.pem"), KeyFile: "/run/keys/home",
			Leave: job.Leave{When: job.WhenCheaper, Clients: []string{"editor", "*"}, Classes: []job.Class{job.Interactive, job.Background}},
			Price: job.Price{Input: 0.15, Output: 0.6, Currency: "EUR"},
		},
		{
			ID: "vendor", Type: "auto", Hardware: power.Cloud, Endpoint: url.URL{Scheme: "https", Host: "api.example.com"},
			Models: map[string]string{"gpt": "gpt-5-mini"}, KeyCredential: "vendor",
			Leave: job.Leave{When: job.WhenNamed, Clients: []string{"a"}, Classes: []job.Class{job.Background}},
		},
		{
			ID: "ollama-cpu", Type: "auto", Hardware: power.CPU, Endpoint: url.URL{Scheme: "http", Host: "127.0.0.1:11434"}, KeyFile: "/k",
		},
	}
	if !reflect.DeepEqual(c.Backends, want) || len(c.Notes) > 0 {
		t.Errorf("got  %+v\nwant %+v\nnotes %q", c.Backends, want, c.Notes)
	}
}

func TestFaultsOfRemoteBackends(t *testing.T) {
	const good = "id: a, hardware: cloud, models: {m: n}, allow: {clients: [x], classes: [interactive]}"
	tests := []struct{ backend, want string }{
		{good + `, endpoint: "http://api.example.com"`, "backends[0].endpoint: want https: without encryption there is only the way to this machine and to a private network"},
		{good + `, endpoint: "http://8.8.8.8:80"`, "backends[0].endpoint: want https: without encryption"},
		{good + `, endpoint: "http://[2001:db8::1]:80"`, "backends[0].endpoint: want https: without encryption"},
		{good + `, endpoint: "https://a.example", key: sk-secret`, "backends[0].key: a key does not belong in this file"},
		{good + `, endpoint: "https://a.example", api_key: sk-secret`, "backends[0].api_key: a key does not belong in this file"},
		{good + `, endpoint: "https://user:sk-secret@a.example"`, "backends[0].endpoint: want no more than a host, port and path, as in https://a.example"},
		{good + `, endpoint: "https://a.example/?key=sk-secret"`, "backends[0].endpoint: want no more than a host, port and path, as in https://a.example"},
		{good + `, endpoint: "https://sk-secret:x y"`, "backends[0].endpoint: "},
		{good + `, endpoint: "https://a.example", key_file: keys/a`, `backends[0].key_file: want an absolute path, or one that begins with ~/, got "keys/a"`},
		{good + `, endpoint: "https://a.example", key_credential: ../a`, "backends[0].key_credential: want the name of a credential"},
		{good + `, endpoint: "https://a.example", key_file: /a, key_credential: a`, "backends[0].key_credential: there is a key_file, too; want one of them"},
		{good + `, endpoint: "http://127.0.0.1:1", ca: /a`, "backends[0].ca: there is no certificate to check without https"},
		{good + `, endpoint: "https://a.example", when: always`, `backends[0].when: want one of named, needed, cheaper, got "always"`},
		{good + `, endpoint: "https://a.example", price: {per_million_input: 1}`, "backends[0].price: want a currency, such as EUR"},
		{good + `, endpoint: "https://a.example", price: {per_million_input: -1, currency: EUR}`, "backends[0].price.per_million_input: want a number from 0 to 1e+06, got -1"},
		{`id: a, hardware: cloud, endpoint: "https://a.example", allow: {clients: [x], classes: [interactive]}`, "backends[0]: a remote backend needs models, with your name for each"},
		{`id: a, hardware: cloud, endpoint: "https://a.example", models: {m: n}, allow: {clients: [x]}`, "backends[0].allow: want both clients and classes; who is not named may not leave this machine"},
		{`id: a, hardware: cloud, endpoint: "https://a.example", models: {m: n}, allow: {clients: [""], classes: [urgent]}`, `backends[0].allow.clients[0]: want the name of a token`},
		{`id: a, hardware: cpu, endpoint: "http://127.0.0.1:1", when: needed`, "backends[0].when: only a backend of hardware: cloud has this"},
		{`id: a, hardware: igpu, endpoint: "https://api.example.com"`, "backends[0].endpoint: api.example.com is not on this machine: want hardware: cloud, and in allow who may leave for it"},
		{`id: a, endpoint: "http://8.8.8.8:11434"`, "backends[0].endpoint: 8.8.8.8 is not on this machine: want hardware: cloud"},
		{`id: a, hardware: cpu, endpoint: "http://api.example.com", key_file: /a`, "backends[0].endpoint: want https: a key is not sent in the clear"},
	}
	for _, tt := range tests {
		_, err := config.Parse([]byte("# a remote backend\nbackends: [{" + tt.backend + "}]\n"))
		if err == nil || !strings.Contains(err.Error(), "line 2: "+tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s:\n got %v\nwant line 2: %s", tt.backend, err, tt.want)
		}
	}
}

func TestRemarksAboutWhereBackendsAre(t *testing.T) {
	tests := map[string]string{
		`id: a, hardware: cloud, endpoint: "https://a.example", models: {m: n}`:                                                    "line 1: backends[0]: nobody may leave this machine for it until allow names clients and classes",
		`id: a, hardware: cpu, endpoint: "http://192.168.1.2:11434"`:                                                               "line 1: backends[0].endpoint: taken for this machine's, as in a container: with hardware: cloud only those jobs leave for it that may",
		`id: a, hardware: cpu, endpoint: "http://ollama:11434"`:                                                                    "",
		`id: a, hardware: cloud, endpoint: "http://tower.lan:8000", models: {m: n}, allow: {clients: [a], classes: [interactive]}`: "",
		`id: a, hardware: cloud, endpoint: "unix:///run/tunnel", models: {m: n}, allow: {clients: [a], classes: [interactive]}`:    "",
	}
	for backend, want := range tests {
		c, err := config.Parse([]byte("backends: [{" + backend + "}]"))
		if err != nil || strings.Join(c.Notes, "\n") != want {
			t.Errorf("%s: %q, %v", backend, c.Notes, err)
		}
	}
}
