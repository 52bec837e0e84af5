"""Every original."""

from typing import Final

from sources.originals.bit import BITS
from sources.originals.clip import CLIPS
from sources.originals.contrastive import CONTRASTIVE
from sources.originals.convnext import CONVNEXTS
from sources.originals.densenets import DENSENETS
from sources.originals.efficientnets import EFFICIENTNETS
from sources.originals.flat import FLAT
from sources.originals.hugging_face import HUGGING_FACE
from sources.originals.resnets import RESNETS
from sources.originals.rotary import ROTARY
from sources.originals.swins import SWINS
from sources.originals.transformers import TRANSFORMERS
from sources.originals.value import Original
from sources.originals.volumes import VOLUMES

ORIGINALS: Final[tuple[Original, ...]] = (
    *RESNETS,
    *CONTRASTIVE,
    *DENSENETS,
    *TRANSFORMERS,
    *HUGGING_FACE,
    *CLIPS,
    *ROTARY,
    *SWINS,
    *CONVNEXTS,
    *EFFICIENTNETS,
    *FLAT,
    *BITS,
    *VOLUMES,
)
