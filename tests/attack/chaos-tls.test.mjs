// chaos-tls: a storm of clients under TLS, while cells and gateways are killed: support-chaos.mjs.
import { stormOfSuite } from './support-chaos.mjs';

stormOfSuite(true);
