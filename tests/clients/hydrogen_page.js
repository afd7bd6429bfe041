// Hydrogen as its own application starts it; the homeserver comes from the address of the page.

import { FeatureSet, Platform, RootViewModel, createNavigation, createRouter } from "hydrogen-view-sdk";

async function main() {
  const defaultHomeServer = new URLSearchParams(location.search).get("homeserver");
  const platform = new Platform({
    container: document.getElementById("app"),
    assetPaths: { downloadSandbox: "/download-sandbox.html", serviceWorker: "/sw.js" },
    config: { defaultHomeServer, themeManifests: [] },
    options: { development: false },
  });
  const navigation = createNavigation();
  platform.setNavigation(navigation);
  await platform.init();
  const urlRouter = createRouter({ navigation, history: platform.history });
  urlRouter.attach();
  const features = await FeatureSet.load(platform.settingsStorage);
  const root = new RootViewModel({ platform, urlRouter, navigation, features });
  await root.load();
  platform.createAndMountRootView(root);
}

main();
