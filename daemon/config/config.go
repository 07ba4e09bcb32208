// Package config reads the configuration file: its defaults, its form, its
// faults, and its changes.
//
// It yields one plain value, complete and valid, and knows nothing of the
// parts that daemon configures with it.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/joulemux/joulemux/daemon/document"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// Config is everything that a user can choose. It is not changed once made.
type Config struct {
	Server   Server
	Backends []Backend
	// Ports are where servers are looked for on this machine.
	Ports   []int
	Routing Routing
	// Models names, by tier, the model of a job that names none; the one of
	// power.TierUnknown stands for tiers without one.
	Models map[power.Tier]string
	Pull   Pull
	Policy power.Policy
	Tiers  map[power.Tier]Tier
	Limits Limits
	Cache  Cache
	Energy Energy
	// LogLevel is "debug", "info", "warn" or "error".
	LogLevel string
	// Notes are remarks about what was understood and has no effect.
	Notes []string
}

// Server says where to listen, and to whom.
type Server struct {
	// Socket is the path of the Unix socket; "" is the usual one.
	Socket string
	// Host is an IP address, and HostLine where in the file it is said. One that
	// is not of the loopback lets other machines in. A port that is 0 is not opened.
	Host               string
	HostLine           int
	HTTPPort, GRPCPort int
	// Origins are allowed beside those of this machine's own pages and apps.
	Origins []string
	// Hosts are names, in lower case, by which others know this machine.
	Hosts []string
	// RequireToken has this user's own programs need one on TCP, too.
	RequireToken bool
	// AllowAdmin permits clients to pull, create, copy, push and delete models.
	AllowAdmin bool
}

// Exposed reports whether other machines are let in.
func (s Server) Exposed() bool { return !net.ParseIP(s.Host).IsLoopback() }

// Backend is one that the user configured. Zero figures are not known.
type Backend struct {
	ID, Name, Type string
	Hardware       power.DeviceClass
	// Endpoint has a path only where OpenAI's API is at another than usual.
	Endpoint url.URL
	// Models are what it calls models, by the clients' names for them.
	Models map[string]string
	// Slots is on how many jobs it works at once.
	Slots        int
	Power        power.Power
	Latency      time.Duration
	TokensPerSec float64
	// Hold is what its device draws for as long as a model is loaded.
	Hold     power.Power
	Priority int
	// KeyFile and KeyCredential say where the key is that the server wants, if it
	// wants one, and CA where the certificates are that its own is signed by.
	KeyFile, KeyCredential, CA string
	// Leave is who may leave this machine for a remote one, and Price what that
	// charges.
	Leave job.Leave
	Price job.Price
	// Memory is how much its device has, in bytes.
	Memory int64
}

// Routing holds the user's choices about routing.
type Routing struct {
	DefaultBackend      string
	PowerAware          bool
	AutoOptimizeLatency bool
	// Learn replaces what is assumed of backends by what jobs have taken.
	Learn bool
	// Curious has backends tried of which little is known, where that is cheap.
	Curious bool
	// Chat, Completion and Background are when answers are due whose clients
	// name no deadline.
	Chat, Completion, Background Due
	// MayMiss is how probable it may be that an answer comes too late, and
	// InTime what it is worth that it does not; nil is as by default.
	MayMiss *float64
	InTime  *power.Energy
}

// Due is how long after a job's arrival its last token is due, and how much
// later for each token of it. Nil fields are as by default, and where both are
// zero it never is.
type Due struct{ After, PerToken *time.Duration }

// Tier holds what may be chosen of a tier; empty fields are as by default.
type Tier struct {
	SecondWorth *power.Power
	DiscreteGPU string
	Background  string
	// KeepAlive is for how long a model stays loaded at most, whatever its
	// client asks, on a device that draws more for it, and KeepAliveFree on one
	// that does not.
	KeepAlive, KeepAliveFree *time.Duration
}

// Pull says when models are fetched.
type Pull struct {
	// Auto is what becomes of a job whose model no backend has: "never" refuses it,
	// "ask" says with that how to fetch the model, and "on" fetches it.
	Auto string
	// OnBattery and OnMetered have them fetched on battery, and by a network
	// connection that is paid for by what it transfers.
	OnBattery, OnMetered bool
	// Registries are hosts, in lower case, from which any client may have models
	// fetched beside Ollama's own registry.
	Registries []string
}

// Limits bound what clients and backends may ask of the daemon.
type Limits struct {
	Body, Prompt int // in bytes
	Load         time.Duration
	// PerClient is what each client may have, and Clients what differs for some,
	// by their names.
	PerClient Quota
	Clients   map[string]Quota
}

// Quota is what one client may have. Zero fields are no limit, or as for each.
type Quota struct {
	// Jobs is how many at once, and PerMinute how many begin in any minute.
	Jobs, PerMinute int
	// PerDay is for how much energy of a calendar day jobs begin.
	PerDay power.Energy
}

// Cache says which answers are kept to be given again.
type Cache struct {
	// Bytes is how much is kept at most; zero is nothing.
	Bytes int
	// Share has clients get the answers to each other's requests.
	Share bool
	// Idle is for how long an answer is kept that nobody asks for.
	Idle time.Duration
}

// Energy says what energy costs the user.
type Energy struct {
	// PricePerKWh is nil if it is not known; a roof may give it for nothing.
	PricePerKWh *float64
	Currency    string
}

// Default returns the configuration in force without a file.
func Default() Config {
	return Config{
		Server:   Server{Host: "127.0.0.1", HTTPPort: 8080, GRPCPort: 50051},
		Ports:    []int{11434, 11435, 11436, 11437},
		Routing:  Routing{DefaultBackend: "ollama-igpu", PowerAware: true, AutoOptimizeLatency: true, Learn: true, Curious: true},
		Models:   map[power.Tier]string{},
		Pull:     Pull{Auto: "never"},
		Policy:   power.DefaultPolicy(),
		Tiers:    map[power.Tier]Tier{},
		Limits:   Limits{Body: 64 << 20, Prompt: 8 << 20, Load: 5 * time.Minute},
		Cache:    Cache{Bytes: 8 << 20, Idle: time.Hour},
		LogLevel: "info",
	}
}

// DefaultPath returns where the file is looked for:
// $XDG_CONFIG_HOME/joulemux/config.yaml.
func DefaultPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "joulemux", "config.yaml"), nil
}

// maxFile is far more than anybody writes.
const maxFile = 1 << 20

// Load reads the file at path. One that does not exist is a file with nothing
// in it. The error of a file with faults is of type document.Faults.
func Load(path string) (Config, error) {
	text, err := document.ReadFile(path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Default(), nil
	}
	var c Config
	if err == nil {
		c, err = Parse(text)
	}
	var faults document.Faults
	if errors.As(err, &faults) {
		err = fmt.Errorf("%s: %w", path, err) // other errors name the file already
	}
	return c, err
}
