"""How the tests load the plugin."""

# by its module's name and not its entry point's: the one of these sources, whether or not it is installed
PLUGIN = ("-p", "no:gradwitness", "-p", "gradwitness_pytest")
