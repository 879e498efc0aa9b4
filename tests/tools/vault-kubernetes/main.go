// Builds the Kubernetes auth method of HashiCorp Vault as a plugin of the server that the tests run against.
package main

import (
	"log"
	"os"

	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/plugin"
)

func main() {
	meta := &api.PluginAPIClientMeta{}
	flags := meta.FlagSet()
	if err := flags.Parse(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
	options := &plugin.ServeOpts{
		BackendFactoryFunc: kubernetes.Factory,
		TLSProviderFunc:    api.VaultPluginTLSProvider(meta.GetTLSConfig()),
	}
	if err := plugin.ServeMultiplex(options); err != nil {
		log.Fatal(err)
	}
}
